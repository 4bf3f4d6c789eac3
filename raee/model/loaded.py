"""Models in memory: loaded once a process, whoever asks.

Two are held: a backbone, and the model that a key may have of its own.
"""

from functools import lru_cache

from raee.config import BackboneSpec, KeySpec
from raee.model.backbones import Backbone
from raee.model.loading import load_backbone


def backbone_of(spec: BackboneSpec, deepest: int | None = None) -> Backbone:
    """A loaded model, in which a depth and all below it can be read.

    deepest: that depth; by default the last.  Raises InputError as `load_backbone` does.
    """
    held = _held(spec)
    if held and held[0].deepest < (held[0].depth if deepest is None else deepest):
        held.clear()  # what there was of it goes before more is loaded
    if not held:
        held.append(load_backbone(spec, deepest=deepest))
    return held[0]


@lru_cache(maxsize=2)
def _held(spec: BackboneSpec) -> list[Backbone]:
    """The model that is held, if one is, whole or as far up as it was needed."""
    return []


def forget_models() -> None:
    """Drop the models that are held."""
    _held.cache_clear()


def retriever_of(key: KeySpec, backbone: BackboneSpec) -> Backbone | None:
    """The key's own model, in the backbone's dtype and on its device.

    None if the key is one of the backbone's layers.
    """
    spec = retriever_spec(key, backbone)
    return None if spec is None else backbone_of(spec)


def retriever_spec(key: KeySpec, backbone: BackboneSpec) -> BackboneSpec | None:
    """Which model a key has of its own; None if it is one of the backbone's layers."""
    if key.of_backbone:
        return None
    return BackboneSpec.model_validate(
        {
            "family": "sentence-encoder",
            "model": key.model,
            "revision": key.revision,
            "dtype": backbone.dtype,
            "device": backbone.device,
        }
    )
