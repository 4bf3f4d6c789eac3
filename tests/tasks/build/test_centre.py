"""A sentence encoder's centre is read before all else, and no row runs through the model twice."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch

import storage.scan
from raee.model.loaded import backbone_of
from storage.manifest import CENTRE
from tasks.build.build import CENTRE_PART, CHECK, READ_CENTRE, Build, open_build
from tasks.build.plan import CENTRE_TEXTS
from tasks.build.planning import plan_build
from tasks.build.publish import publish_build
from tasks.build.table import BUILD_STEPS
from tasks.entries import TOKENS, key_column
from tasks.job import Job
from tests.raee.models import LAYERS, save_model
from tests.raee.plain import Plain
from tests.raee.runs import rows_of, rows_run
from tests.texts import LABELS, sentences

ROWS = sentences(60)
TEXTS = [row["text"] for row in ROWS]
DESCRIPTIONS = [f"a {label} film" for label in LABELS]
FEW = 20
"""Rows over which a centre is read, if not over all."""


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[str, Path]:
    """By pooling, a tiny sentence encoder."""
    root = tmp_path_factory.mktemp("models")
    mean = save_model("bert-encoder", root / "mean")
    cls = shutil.copytree(mean, root / "cls")
    (cls / "1_Pooling").mkdir()
    (cls / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    return {"mean": mean, "cls": cls}


@dataclass
class Site:
    """Where builds are swept, with their steps and without a flow."""

    root: Path
    encoders: dict[str, Path]

    def job(self, rows=ROWS, pooling="mean", store="store", **changed) -> Job:
        """A job on some rows."""
        corpus = self.root / f"{store}.parquet"
        pl.DataFrame(rows).write_parquet(corpus)
        return Job.model_validate(
            {
                "name": "demo",
                "store": str(self.root / store),
                "corpus": {"uri": str(corpus), "id": "id"},
                "prompt": {"labels": dict(zip(LABELS, DESCRIPTIONS, strict=True))},
                "backbone": {
                    "family": "sentence-encoder",
                    "model": str(self.encoders[pooling]),
                    "dtype": "float32",
                },
                "key": {"layers": [0, 2]},
                "shard_rows": 25,
            }
            | changed
        )

    def swept(self, job: Job) -> Build:
        """The job's build once all rows are read."""
        planned = plan_build.fn(job)
        for step in BUILD_STEPS:
            for number in range(planned.shards) if step.per_shard else (None,):
                step.run(planned.work, number)
            if step.marker is CHECK:
                return open_build(planned.work)
        raise AssertionError("no step checks what was swept")


@pytest.fixture
def site(tmp_path, encoders) -> Site:
    return Site(tmp_path, encoders)


@pytest.fixture(params=["all", "few"])
def centre_rows(request, monkeypatch) -> str:
    """The centre is read over all rows, or over a few."""
    if request.param == "few":
        monkeypatch.setattr(storage.scan, "CENTRE_ROWS", FEW)
    return request.param


def _centre_of(build: Build) -> torch.Tensor:
    return safetensors.torch.load(build.centre.read(CENTRE))["mean"]


def _read(build: Build, *columns: str) -> list[np.ndarray]:
    """(rows, width) columns of the readings of all rows."""
    shards = [build.swept.values(number, columns) for number in build.numbers]
    return [np.concatenate(parts) for parts in zip(*shards, strict=True)]


@pytest.mark.usefixtures("centre_rows")
def test_each_row_runs_once_in_a_build(site):
    once = list({row["text"]: row for row in ROWS}.values())
    job = site.job(once)
    backbone = backbone_of(job.backbone)
    with rows_run(backbone) as seen:
        site.swept(job)
    assert seen == rows_of(backbone, [*(row["text"] for row in once), *DESCRIPTIONS])


@pytest.mark.usefixtures("centre_rows")
def test_other_rows_with_a_text_of_the_centre_do_not_run(site):
    rows = [row | {"id": f"{n}-{row['id']}"} for n in range(3) for row in ROWS]
    job = site.job(rows)
    backbone = backbone_of(job.backbone)
    with rows_run(backbone) as seen:
        build = site.swept(job)
    chosen = json.loads(build.folder.read(CENTRE_TEXTS))
    others = [row["text"] for row in rows if row["text"] not in chosen]
    assert seen == rows_of(backbone, [*chosen, *others, *DESCRIPTIONS])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_centre_heads_keys_states_and_sums_are_those_of_plain_calls(site, pooling, centre_rows):
    job = site.job(pooling=pooling, sample_rows=30)
    build = site.swept(job)
    plain, by_first = Plain(site.encoders[pooling], masked_lm=False), pooling == "cls"
    chosen = json.loads(build.folder.read(CENTRE_TEXTS))
    assert len(chosen) == (60 if centre_rows == "all" else FEW) > len(set(chosen))
    centre = torch.stack([plain.embeddings(text, by_first) for text in chosen]).mean(dim=0)
    torch.testing.assert_close(_centre_of(build), centre, atol=1e-6, rtol=0)

    answers, confidences, *keys = _read(
        build, "answers", "confidences", key_column(0), key_column(1)
    )
    expected = plain.cosine_distribution(TEXTS, DESCRIPTIONS, centre, by_first).transpose(1, 0, 2)
    np.testing.assert_allclose(confidences, expected.max(axis=2), atol=1e-5)
    of_answer = np.take_along_axis(expected, answers[..., None].astype(int), axis=2)[..., 0]
    np.testing.assert_allclose(of_answer, expected.max(axis=2), atol=1e-5)

    means = torch.stack([plain.embeddings(text) for text in TEXTS], dim=1).numpy()
    for own, depth in zip(keys, (0, 2), strict=True):
        np.testing.assert_allclose(own, means[depth], atol=1e-5)
    marks, depths = build.swept.marks, range(LAYERS + 1)
    assert 0 < marks.sampled.sum() < 60
    states = np.stack(build.swept.states("mean", depths))
    np.testing.assert_allclose(states, means[:, marks.sampled], atol=1e-5)
    sums = build.swept.sums(0, "mean")
    for number in build.numbers[1:]:
        sums = sums + build.swept.sums(number, "mean")
    assert sums.rows.sum() == 60
    for label in range(len(LABELS)):
        own = means[:, marks.label == label].sum(axis=1, dtype=np.float64)
        np.testing.assert_allclose(sums.first[:, label], own, atol=1e-4)
    second = np.einsum("drv,drw->dvw", means.astype(np.float64), means)
    np.testing.assert_allclose(sums.second, second, atol=1e-4)


@pytest.mark.parametrize("shard_rows", [7, 60])
def test_shards_of_other_sizes_have_the_same_centre_and_readings(site, shard_rows, centre_rows):
    columns = (TOKENS, "answers", "confidences", key_column(0), key_column(1))
    builds = [
        site.swept(site.job(store=f"store-{rows}", shard_rows=rows)) for rows in (25, shard_rows)
    ]
    centres = [_centre_of(build) for build in builds]
    torch.testing.assert_close(*centres, atol=1e-6, rtol=0)
    for own, other in zip(*(_read(build, *columns) for build in builds), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)


def test_a_crash_costs_no_more_than_a_part_of_a_shards_size(site, monkeypatch):
    undisturbed = site.swept(site.job(store="other"))
    job, backbone = site.job(), backbone_of(undisturbed.plan.job.backbone)
    real, calls = Build.sweep, Counter()

    def sweep(*args):
        calls["parts"] += 1
        if calls["parts"] == 2:
            raise KeyboardInterrupt
        return real(*args)

    with rows_run(backbone) as seen:
        with monkeypatch.context() as patch:
            patch.setattr(Build, "sweep", sweep)
            with pytest.raises(KeyboardInterrupt):
                site.swept(job)
        assert seen.total() == 25
        build = site.swept(job)
    assert seen == rows_of(backbone, [*TEXTS, *DESCRIPTIONS])
    assert build.record(CENTRE_PART, 1).rows == 25
    assert build.centre.read(CENTRE) == undisturbed.centre.read(CENTRE)


def test_a_rebuild_inherits_the_centre_and_reads_only_new_rows(site):
    first = site.swept(site.job())
    backbone = backbone_of(first.plan.job.backbone)
    for step in BUILD_STEPS:
        for number in first.numbers if step.per_shard else (None,):
            step.run(first.folder.uri, number)
    publish_build.fn(first.folder.uri)
    new = [row | {"id": f"new-{row['id']}"} for row in sentences(9, seed=7)]
    assert not {row["text"] for row in new} & set(TEXTS)
    with rows_run(backbone) as seen:
        second = site.swept(site.job([*ROWS[5:], *new]))
    assert second.plan.parent == first.plan.version
    assert second.found(READ_CENTRE) is None
    assert second.centre.read(CENTRE) == first.centre.read(CENTRE)
    assert seen == rows_of(backbone, [*(row["text"] for row in new), *DESCRIPTIONS])


def test_a_masked_lm_has_no_centre_and_each_of_its_rows_runs_once(site):
    folder = save_model("bert", site.root / "bert")
    words = dict(zip(LABELS, ("terrible", "great", "okay"), strict=True))
    job = site.job(
        backbone={"family": "masked-lm", "model": str(folder), "dtype": "float32"},
        prompt={"template": "{text} it was {mask}", "labels": words},
    )
    backbone = backbone_of(job.backbone)
    with rows_run(backbone) as seen:
        build = site.swept(job)
    assert seen.total() == 60
    assert build.found(READ_CENTRE) is None
    assert not [name for name in build.folder.names() if name.startswith("centre")]
