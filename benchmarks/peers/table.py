"""The peers, in the order of tables."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
THREADS = 2
"""Cores that a peer has, however many the machine has."""


@dataclass(frozen=True)
class Peer:
    """One way to classify, and where it is made."""

    title: str
    module: str
    """Of this package."""
    make: str
    """The module's function that makes it of a `Task`."""
    packages: tuple[str, ...]
    """Those whose versions are told."""
    own: bool = False
    """Whether it runs in raee's environment and not in the peers'."""

    @property
    def python(self) -> str:
        """The interpreter that it runs in."""
        theirs = os.environ.get("RAEE_PEERS_PYTHON", str(RESULTS / "peers-env" / "bin" / "python"))
        return sys.executable if self.own else theirs


_ENCODER = ("torch", "transformers", "tokenizers", "scikit-learn")

OURS, ALONE, FULL_DEPTH, INT8 = "raee", "raee-alone", "transformers", "openvino"
BFLOAT16 = "st-bf16"
PEERS = {
    "tfidf": Peer("TF-IDF + LR", "bags", "tfidf", ("scikit-learn",)),
    "fasttext": Peer("fastText", "bags", "fasttext", ("fasttext-community",)),
    "static": Peer("model2vec + LR", "bags", "static", ("model2vec", "scikit-learn")),
    "st-fp32": Peer(
        "sentence-transformers float32 + LR",
        "encoders",
        "sentence_transformers_float32",
        ("sentence-transformers", *_ENCODER),
    ),
    BFLOAT16: Peer(
        "sentence-transformers bfloat16 + LR",
        "encoders",
        "sentence_transformers_bfloat16",
        ("sentence-transformers", *_ENCODER),
    ),
    FULL_DEPTH: Peer("float32 full depth + LR", "encoders", "full_depth", _ENCODER, own=True),
    INT8: Peer("OpenVINO int8 + LR", "int8", "openvino", ("openvino", "nncf", *_ENCODER)),
    OURS: Peer("**raee**, tuned", "ours", "raee", ("raee", *_ENCODER), own=True),
    ALONE: Peer("**raee**, `balance: database`", "ours", "raee", ("raee", *_ENCODER), own=True),
}
