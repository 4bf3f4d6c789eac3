"""The base of everything that a user sets."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A part of the job file: immutable, and an unknown key is an error."""

    # JSON, which plans are kept in, has no infinity.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
