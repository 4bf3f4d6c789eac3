# The project's own environment is .venv, made here and nowhere else.
# `make demo` and `make test` work from a fresh clone, and again after that.

# The system's own Python comes first: distributions build it with profile-guided optimisation, and the
# tests take a sixth less CPU time than with one that was compiled without.
PYTHON ?= $(or $(shell for python in /usr/bin/python3 python3; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done),python3)
VENV := .venv
BIN := $(VENV)/bin
PEERS := benchmarks/results/peers-env
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help install demo test lint types unit services kills chunks clean train-small-causal \
	benchmark-honesty benchmark-quality benchmark-paper benchmark-scan benchmark-rebuild benchmark-index \
	benchmark-fits benchmark-prefix benchmark-precision benchmark-words benchmark-speed benchmark-gpu \
	benchmark-orchestration benchmark-start benchmark-stages benchmark-peers benchmark-check benchmark-hardware \
	benchmark-growth

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/installed ## the environment in .venv

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "== installing into $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "raee needs Python 3.11 or later: make PYTHON=python3.11 .."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "on Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	@$(PIP) install --constraint constraints.txt torch
	@$(PIP) install --constraint constraints.txt --editable '.[demo,dev]'
	@touch $@

demo: install ## builds a database from sample messages, classifies others, shows what came out
	@$(BIN)/python examples/demo.py

# At once: mypy works on one core, and half a minute of it would leave the other idle.
test: ## lint, types and tests
	@$(MAKE) --no-print-directory --jobs=2 lint types unit

lint: install ## ruff
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: install ## mypy
	@echo "== mypy"
	@$(BIN)/mypy

services: ## what the tests speak to and pip does not install: Ceph's gateway, PostgreSQL, Chromium ..
	@tests/services.sh

unit: install services ## pytest
	@echo "== pytest"
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

benchmark-quality: install ## accuracy and layers on the data sets in RAEE_DATA
	@$(BIN)/python benchmarks/quality.py

train-small-causal: install ## a small causal model, out of the texts in RAEE_DATA, into the folder RAEE_CAUSAL
	@$(BIN)/python benchmarks/small_causal.py $(MINUTES)

benchmark-paper: install ## the paper's figures of MODEL=roberta-large, t5-large, llama-3-8b or gemma-7b beside ours
	@$(BIN)/python benchmarks/paper.py $(MODEL) $(TASKS)

benchmark-honesty: install ## what figures are worth on unseen texts, on the data sets in RAEE_DATA
	@$(BIN)/python -m benchmarks.honesty

benchmark-rebuild: install ## a nightly rebuild against a build from nothing, on passages of the reviews in RAEE_DATA
	@$(BIN)/python benchmarks/rebuild.py

benchmark-gpu: install ## seconds a row by the layer left at, for larger models, on the reviews in RAEE_DATA
	@$(BIN)/python -m benchmarks.gpu

benchmark-scan: install ## the look over 3,000,000 rows, next to a polars query and a loop over rows
	@$(BIN)/python -m benchmarks.scan

benchmark-index: install ## which index so many keys get, its recall, time and memory
	@$(BIN)/python benchmarks/index.py

benchmark-prefix: install ## a causal model's rows with the prefix that they share kept and without
	@$(BIN)/python benchmarks/shared_prefix.py

benchmark-fits: install ## the fit of 77 and 150 labels against the sweep, on the data sets in RAEE_DATA
	@$(BIN)/python benchmarks/fits.py

benchmark-precision: install ## accuracy and rows/s in float32, bfloat16 and int8, on the data sets in RAEE_DATA
	@$(BIN)/python -m benchmarks.precision

benchmark-words: install ## the n-grams alone: the fit of 100,000 texts, a version's file, rows/s, on the data sets in RAEE_DATA
	@$(BIN)/python -m benchmarks.words

benchmark-orchestration: install ## what server and workers cost, from 10 to 1,000 chunks
	@$(BIN)/python benchmarks/orchestration.py

benchmark-start: install ## `raee classify` of the demo's 288 messages, from start to end, beside a plain script
	@$(BIN)/python -m benchmarks.start

benchmark-stages: install ## a sweep's stages beside each other, and shapes of batches, on the data sets in RAEE_DATA
	@$(BIN)/python -m benchmarks.stages

kills: install services ## kill -9 at 100 random moments of whatever writes, on a folder and on S3
	@RAEE_KILLS=100 $(BIN)/python -m pytest -s tests/flows/test_kills.py

chunks: install services ## 200 chunks over 4 workers, on SQLite and on PostgreSQL: no row lost, none doubled
	@RAEE_CHUNKS=200 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/orchestration -k chunks

benchmark-speed: install ## rows/s against a plain loop in the same number format, on the reviews in RAEE_DATA
	@$(BIN)/python -m benchmarks.speed

benchmark-peers: install $(PEERS)/installed ## accuracy and rows/s beside what else classifies texts, on the data sets in RAEE_DATA
	@$(BIN)/python -m benchmarks.peers $(TASKS)

benchmark-check: install ## fails if a ratio is 15 % below the one in benchmarks/expected.yaml, on the data sets in RAEE_DATA
	@$(BIN)/python -m benchmarks.peers.check

benchmark-hardware: install ## share of the processor's arithmetic that exits, full depth and a sweep use (SHAPES=minilm: one)
	@$(BIN)/python -m benchmarks.hardware $(SHAPES)

benchmark-growth: install ## seconds and memory of a row more, to 2,000,000 rows (GROWTH="--rows 1000 10000 --memory 20000": fewer)
	@$(BIN)/python -m benchmarks.growth $(GROWTH)

# The peers' libraries hold each other back, and raee's: they have an environment of their own.
$(PEERS)/installed: benchmarks/peers/requirements.txt
	@echo "== installing into $(PEERS)"
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install $$(grep ^torch== $<)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install --requirement $<
	@touch $@

clean: ## removes what was made: environment, demo, results
	rm -rf $(VENV) demo build benchmarks/results .pytest_cache .mypy_cache .ruff_cache .hypothesis
