"""Which model answers, and how it is loaded: `backbone` of a job file.

This module is light on purpose: importing it loads neither torch nor transformers.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raee.settings import Settings

Family = Literal["masked-lm", "sentence-encoder", "causal-lm", "seq2seq-lm"]


class BackboneSpec(Settings):
    """The frozen model that answers: which it is, and how this machine loads it.

    What a version is depends on the former alone.
    """

    family: Family = Field(description="How the model's own head is read.")
    model: str = Field(description="Hub name or local folder.")
    revision: str = Field(default="main", description="Branch, tag or commit on the hub.")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        default="auto",
        description="`auto`: bfloat16 on a GPU that has it; on a CPU the fastest of float32, "
        "bfloat16 and int8, if it has them.",
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = Field(
        default="auto", description="`auto` (the first GPU, or the CPU), cpu, cuda, cuda:N or mps."
    )
    device_map: Literal["auto"] | None = Field(
        default=None,
        description="`auto`: a model larger than one GPU is spread over all, and the CPU; needs "
        "the package accelerate.",
    )
    attn_implementation: str | None = Field(
        default=None,
        min_length=1,
        description="transformers' name of an attention, such as `sdpa` or `eager`; default: the "
        "library's choice.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Whether code that comes with the model may run."
    )
    pickled_weights: bool = Field(
        default=False, description="Whether weights may be loaded that are not safetensors."
    )

    @model_validator(mode="after")
    def _one_place(self) -> "BackboneSpec":
        if self.device_map is not None and self.device != "auto":
            raise ValueError("give `device` or `device_map`, not both")
        if self.device_map is not None and self.dtype == "int8":
            raise ValueError("dtype int8 is not for a model that is spread over devices")
        return self


ANYWHERE = {"device": "auto", "device_map": None, "attn_implementation": None}
"""What of a backbone's settings is for one machine, as it is by default."""

_TRUSTED = {"trust_remote_code": False, "pickled_weights": False}


def untrusting(spec: BackboneSpec) -> BackboneSpec:
    """A model as another job names it: for any machine, and nothing is trusted on its word."""
    return spec.model_copy(update=ANYWHERE | _TRUSTED)
