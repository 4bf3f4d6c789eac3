"""What a job says about the method, as pydantic models (the keys of docs/job.md).

This module is light on purpose: importing it loads neither torch nor faiss.
"""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from raee.errors import clauses, cut, listed
from raee.model.spec import BackboneSpec as BackboneSpec
from raee.model.spec import Family as Family
from raee.prompt_spec import MOST_LABELS as MOST_LABELS
from raee.prompt_spec import PromptSpec as PromptSpec
from raee.readers.table import READERS
from raee.settings import Settings as Settings


def _known_reader(name: str) -> str:
    if name not in READERS:
        raise ValueError(f"there is no reader {cut(repr(name))}; there are {listed(READERS)}")
    return name


ReaderName = Annotated[
    str, AfterValidator(_known_reader), WithJsonSchema({"type": "string", "enum": [*READERS]})
]
"""What turns a state into a distribution over the labels (docs/method.md)."""

Share = Annotated[float, Field(ge=0, le=1)]

PAPER_NEIGHBOURS = 12
"""k of the paper (arXiv 2405.15198, section 4): neighbours asked for one query."""

MOST_NEIGHBOURS = 10_000
"""The most neighbours that a policy may ask for: a build lists half as many again for each row."""

PRICE = 0.03
"""Accuracy that a full pass must buy, by default: what the labelled rows of eight public data sets
are answered best with at 1.2 layers of 6 (BENCHMARKS.md, what a price buys)."""


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
    layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(),
        description="With `backbone`, instead of `layer`: several depths, each with a key and a "
        "vote of its own. Policies that plan on neighbours ask those of the shallowest.",
    )
    revision: str = Field(default="main", description="With a sentence encoder: its revision.")

    @model_validator(mode="after")
    def _layers_only_for_backbone(self) -> "KeySpec":
        if not self.of_backbone and (self.layer != 0 or self.layers):
            raise ValueError("`layer` goes with `model: backbone`; a sentence encoder has one key")
        if self.layers and self.layer != 0:
            raise ValueError("give `layer` or `layers`, not both")
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError("`layers` go up and name each depth once")
        return self

    @property
    def of_backbone(self) -> bool:
        """True if the keys come out of the backbone's own pass."""
        return self.model == "backbone"

    @property
    def depths(self) -> tuple[int, ...]:
        """Backbone layers that a row has run when a key is known, by key."""
        return (self.layers or (self.layer,)) if self.of_backbone else (0,)

    @property
    def depth(self) -> int:
        """Backbone layers that a row has run when the neighbours of a plan are known."""
        return self.depths[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The keys' file names in a version: `layer-03` or `retriever`."""
        if not self.of_backbone:
            return ("retriever",)
        return tuple(f"layer-{depth:02d}" for depth in self.depths)


class FullPolicy(Settings):
    """Every row runs all layers and the head answers."""

    name: Literal["full"] = "full"


class FixedPolicy(Settings):
    """Every row leaves at the same exit."""

    name: Literal["fixed"] = "fixed"
    exit: str | None = Field(
        default=None,
        description="Such as `probe@4`; default: the exit that is right most often on the "
        "database's rows.",
    )


class RetrievalPolicy(Settings):
    """Every row gets its neighbours' vote; no layer above the key's is run."""

    name: Literal["retrieval"] = "retrieval"
    exit: str | None = Field(
        default=None,
        description="Such as `vote@3`; default: the vote that is right most often on the "
        "database's rows.",
    )


class RaeePolicy(Settings):
    """The paper's rule (arXiv 2405.15198, section 3; docs/method.md)."""

    name: Literal["raee"] = "raee"
    k: int = Field(
        default=PAPER_NEIGHBOURS, ge=1, le=MOST_NEIGHBOURS, description="Neighbours asked."
    )
    threshold: float = Field(
        default=0.9, ge=0, le=1, description="Confidence from which a right exit counts."
    )
    top: int = Field(
        default=3, ge=1, description="Right exits that count if none reaches the threshold."
    )


class KernelPolicy(Settings):
    """The exit with the best chance to be right, as the neighbours say, less what it costs."""

    name: Literal["kernel"] = "kernel"
    k: int = Field(
        default=PAPER_NEIGHBOURS, ge=1, le=MOST_NEIGHBOURS, description="Neighbours asked."
    )
    readers: tuple[ReaderName, ...] = Field(
        default=("head", "vote", "probe"), min_length=1, description="Readers it chooses among."
    )
    bandwidth: float = Field(
        default=1.0,
        gt=0,
        description="Squared distance, as a share of the neighbours' mean, at which a neighbour "
        "counts 1/e of one at no distance.",
    )
    smoothing: float = Field(
        default=3.0, gt=0, description="Neighbours that an exit's rate on all rows counts as."
    )
    cost: float = Field(
        default=0.1, ge=0, description="Chance to be right that a full pass must gain."
    )


class Walkway(Settings):
    """Checkpoints of a stepwise policy: depths, and how sure a reader must be there."""

    first: int = Field(default=0, ge=0, description="Depth of the first checkpoint.")
    last: int | None = Field(
        default=None, ge=0, description="Depth of the last, where every row leaves; default: full."
    )
    threshold: Share | tuple[Share, ...] = Field(
        default=0.9, description="Confidence that is enough; one number, or one a depth."
    )

    @model_validator(mode="after")
    def _depths_go_up(self) -> "Walkway":
        if self.last is not None and self.last < self.first:
            raise ValueError(f"`last` {self.last} is below `first` {self.first}")
        if isinstance(self.threshold, tuple):
            if self.last is None:
                raise ValueError("thresholds by depth need `last`")
            if len(self.threshold) != self.last - self.first + 1:
                raise ValueError(
                    f"depths {self.first} to {self.last} need {self.last - self.first + 1} "
                    f"thresholds, there are {len(self.threshold)}"
                )
        return self

    def threshold_at(self, depth: int) -> float:
        """The confidence that is enough at a depth."""
        if isinstance(self.threshold, tuple):
            return self.threshold[depth - self.first]
        return self.threshold


class CascadePolicy(Walkway):
    """A row leaves at the first reader that is confident enough."""

    name: Literal["cascade"] = "cascade"
    readers: tuple[ReaderName, ...] = Field(
        default=("probe",), min_length=1, description="Readers asked at each depth, in this order."
    )


class De3Policy(Walkway):
    """DE3-BERT's rule without its training (arXiv 2402.05948).

    Entropy and distance to the label prototypes, combined, say whether a probe's answer is final.
    """

    name: Literal["de3"] = "de3"


class RiskSpec(Settings):
    """A promise: how much accuracy may be lost against full depth, and with what confidence."""

    max_loss: float = Field(gt=0, lt=1, description="Accuracy that may be lost, as a share.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Chance that it holds.")


class TunedPolicy(Settings):
    """The policy that the version's tuning found for an objective."""

    name: Literal["tuned"] = "tuned"
    accuracy: Literal["best", "full"] | Share = Field(
        default="best",
        description="`best`, the most accurate policy after its price; `full`, the cheapest policy "
        "that is right as often as the best exit at full depth; or an accuracy: the cheapest "
        "policy that has it less one standard error.",
    )
    price: float = Field(
        default=PRICE,
        ge=0,
        le=1,
        description="With `accuracy: best`: the accuracy that a full pass must buy, as a share; 0 "
        "takes the most accurate policy whatever it costs.",
    )
    risk: RiskSpec | None = Field(
        default=None, description="Instead of `accuracy`: the cheapest policy with this promise."
    )

    @model_validator(mode="after")
    def _one_objective(self) -> "TunedPolicy":
        if self.risk is not None and self.accuracy != "best":
            raise ValueError("give `accuracy` or `risk`, not both")
        if self.price != PRICE and (self.risk is not None or self.accuracy != "best"):
            raise ValueError("`price` goes with `accuracy: best`; a target has no price")
        return self


RunnablePolicy = (
    FullPolicy
    | FixedPolicy
    | RetrievalPolicy
    | RaeePolicy
    | KernelPolicy
    | CascadePolicy
    | De3Policy
)
"""A policy that says for itself where rows leave."""

_Policy = Annotated[RunnablePolicy | TunedPolicy, Field(discriminator="name")]

PolicySpec = Annotated[
    _Policy,
    BeforeValidator(
        lambda value: {"name": value} if isinstance(value, str) else value,
        json_schema_input_type=str | _Policy,  # an orchestrator's server refuses what it forbids
    ),
]
"""A policy with its parameters, or just its name."""


class FarSpec(Settings):
    """What becomes of rows that are unlike the database's."""

    quantile: float = Field(
        default=0.999,
        gt=0,
        lt=1,
        description="Share of rows like the database's that are not flagged: a row is far if it is "
        "rarer than 1 - quantile among them.",
    )
    then: Literal["full", "abstain"] = Field(
        default="full", description="`full`: run to full depth; `abstain`: leave unlabelled."
    )


class Method(Settings):
    """What decides a database beside its rows: keys of a job file (`tasks.job` describes them)."""

    prompt: str | PromptSpec | None = None
    backbone: BackboneSpec
    key: KeySpec = KeySpec()
    policy: PolicySpec = TunedPolicy()
    far: FarSpec | None = FarSpec()
    sample_rows: int = Field(default=20_000, ge=1)
    words_rows: int = Field(default=200_000, ge=1)
    index: str = Field(default="auto", min_length=1)


def in_words(error: ValidationError) -> str:
    """What is wrong with settings that were given in Python, in one line.

    What is said of the model is called as if it stood beside the others: there it is a parameter.
    """
    faults = []
    for fault in error.errors():
        path = [str(part) for part in fault["loc"] if part != "backbone"]
        # A mapping was never meant to be the string that a prompt could be instead.
        if path[1:] != ["str"] or isinstance(fault["input"], str):
            faults.append(f"{'.'.join(path)}: {fault['msg'].removeprefix('Value error, ')}")
    return cut(clauses(faults), 500)
