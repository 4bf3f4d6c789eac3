"""Models in memory: loaded once a process, whoever asks.

Two are held: a backbone, and the model that a key may have of its own.
"""

from functools import lru_cache

from raee.config import BackboneSpec, KeySpec
from raee.model.backbones import Backbone
from raee.model.loading import load_backbone


@lru_cache(maxsize=2)
def backbone_of(spec: BackboneSpec) -> Backbone:
    """A loaded model; raises InputError as `load_backbone` does."""
    return load_backbone(spec)


def retriever_of(key: KeySpec, dtype: str) -> Backbone | None:
    """The key's own model, in the backbone's dtype; None where the key is one of its layers."""
    if key.of_backbone:
        return None
    return backbone_of(
        BackboneSpec.model_validate(
            {
                "family": "sentence-encoder",
                "model": key.model,
                "revision": key.revision,
                "dtype": dtype,
            }
        )
    )
