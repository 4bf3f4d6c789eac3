"""The plan of a build, by which every process knows what is built; `plan_build` makes it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from raee.exits import Exit, exits_of
from raee.model.precision import Precision
from raee.model.prompts import Prompt
from storage.database import Version
from storage.manifest import index_path
from storage.scan import Shard
from tasks.job import Job

PLAN = "plan.json"

CENTRE_TEXTS = "centre-texts.json"
"""The file beside the plan with the texts over which a sentence encoder's centre is read."""


class BuildPlan(BaseModel):
    """What a build does; immutable once it is in the work folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: Job
    version: str
    parent: str | None
    takes_over: bool
    """Whether readings of rows that the parent has are reused."""
    recipe: str
    """Digest of what decides a version, its centre apart; the parent's if nothing has changed."""
    prompt: Prompt
    backbone: dict[str, str]
    """Fingerprints of the backbone, its number format apart."""
    key: dict[str, str]
    """The same of the key's model."""
    precision: Precision | None
    """The number format of the models; None if the first worker that reads finds out."""
    depth: int
    """Layers of the backbone."""
    rows: int
    """Usable rows, as far as a scan without the tokenizer tells."""
    rejected: dict[str, int]
    """Rows that cannot be used, by reason."""
    corpus: dict[str, Any]
    """For the manifest: `uri`, `rows` (usable or not) and `fingerprint`."""
    sample: dict[str, int] | None
    """By label, the largest of `sample_numbers` of a row in the sample; None if all rows are."""
    words_sample: dict[str, int] | None
    """The same of the rows that n-grams are fitted on, among which is the sample."""
    shards: list[Shard]

    @property
    def target(self) -> Version:
        """The version that is built."""
        return self.job.database.version(self.version)

    @property
    def parent_version(self) -> Version | None:
        """The version that the build starts from; None if it is the first."""
        return None if self.parent is None else self.job.database.version(self.parent)

    @property
    def exits(self) -> tuple[Exit, ...]:
        """The exits of an entry, in the order of its lists."""
        return exits_of(self.depth, self.job.key.depths)

    @property
    def index_paths(self) -> list[str]:
        """The indexes' files in the version, one a key."""
        return [index_path(name) for name in self.job.key.names]

    @property
    def has_centre(self) -> bool:
        """Whether the backbone is read against a centre."""
        return self.job.backbone.family == "sentence-encoder"
