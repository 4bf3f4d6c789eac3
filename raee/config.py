"""What a job says about the method, as pydantic models (the job file's keys, DESIGN.md section 7).

Light on purpose: importing it loads neither torch nor faiss.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Family = Literal["masked-lm", "sentence-encoder"]

PAPER_NEIGHBOURS = 12
"""k of the paper (arXiv 2405.15198, section 4): neighbours asked for one query."""


class Settings(BaseModel):
    """A part of the job file: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptSpec(Settings):
    """A prompt of the user's own: what is asked of the model."""

    template: str | None = Field(
        default=None,
        description="The text's frame: `{text}` once; for masked LMs also `{mask}` once.",
    )
    labels: dict[str, str] = Field(
        min_length=1,
        description="Label name to label word (masked LM) or description (sentence encoder).",
    )


class BackboneSpec(Settings):
    """The frozen model that answers."""

    family: Family = Field(description="How the model's own head is read.")
    model: str = Field(description="Hub name or local folder; safetensors weights only.")
    revision: str = Field(default="main", description="Branch, tag or commit on the hub.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="`auto`: bfloat16 on a GPU that has it, float32 elsewhere."
    )


class KeySpec(Settings):
    """The vector by which neighbours are found."""

    model: str = Field(
        default="backbone",
        description="`backbone` (a state on its own way up), or a sentence encoder's hub name or "
        "folder, which then costs a pass of its own.",
    )
    layer: int = Field(
        default=0, ge=0, description="With `backbone`: the depth whose token mean is the key."
    )
    revision: str = Field(default="main", description="With a sentence encoder: its revision.")

    @model_validator(mode="after")
    def _layer_only_for_backbone(self) -> "KeySpec":
        if not self.of_backbone and self.layer != 0:
            raise ValueError("`layer` goes with `model: backbone`; a sentence encoder has one key")
        return self

    @property
    def of_backbone(self) -> bool:
        """True where the key comes out of the backbone's own pass."""
        return self.model == "backbone"

    @property
    def depth(self) -> int:
        """Backbone layers that a row has run when its neighbours are known."""
        return self.layer if self.of_backbone else 0

    @property
    def name(self) -> str:
        """The key's file name in a version: `layer-03` or `retriever`."""
        return f"layer-{self.layer:02d}" if self.of_backbone else "retriever"


class FullPolicy(Settings):
    """Every row runs all layers and the head answers."""

    name: Literal["full"] = "full"


class FixedPolicy(Settings):
    """Every row leaves at the same exit."""

    name: Literal["fixed"] = "fixed"
    exit: str | None = Field(
        default=None,
        description="Such as `head@4`; default: the head exit that is right most often on the "
        "database's rows.",
    )


class RetrievalPolicy(Settings):
    """Every row gets its neighbours' vote; no layer above the key's is run."""

    name: Literal["retrieval"] = "retrieval"


class RaeePolicy(Settings):
    """The paper's rule (arXiv 2405.15198, section 3; DESIGN.md section 2)."""

    name: Literal["raee"] = "raee"
    k: int = Field(default=PAPER_NEIGHBOURS, ge=1, description="Neighbours asked.")
    threshold: float = Field(
        default=0.9, ge=0, le=1, description="Confidence from which a right exit counts."
    )
    top: int = Field(
        default=3, ge=1, description="Right exits that count where none reaches the threshold."
    )


class CascadePolicy(Settings):
    """A row leaves at the first head that is confident enough."""

    name: Literal["cascade"] = "cascade"
    threshold: float = Field(default=0.9, ge=0, le=1, description="Confidence that is enough.")
    first: int = Field(default=0, ge=0, description="Depth of the first head that is asked.")


PolicySpec = Annotated[
    FullPolicy | FixedPolicy | RetrievalPolicy | RaeePolicy | CascadePolicy,
    Field(discriminator="name"),
    BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value),
]
"""A policy with its parameters, or just its name."""
