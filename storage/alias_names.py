"""The aliases that raee itself moves; apart, so that `raee --help` imports no more for a name."""

DEFAULT_ALIAS = "production"

PINNED = "pinned"
"""The alias of the version with which each night's new one is compared: the first version, or the
last that a person has pointed `production` at."""
