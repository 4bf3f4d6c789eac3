"""The hub that models come from: nobody waits for one that is not there, or reads of retries."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import huggingface_hub
import transformers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from raee.config import BackboneSpec


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silences load reports, weight-by-weight progress and retries: they are not for users."""
    logs: Any = transformers.logging
    hub_logs: Any = huggingface_hub.utils.logging
    level, progress = logs.get_verbosity(), logs.is_progress_bar_enabled()
    hub_level = hub_logs.get_verbosity()
    logs.set_verbosity_error()
    hub_logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        hub_logs.set_verbosity(hub_level)
        if progress:
            logs.enable_progress_bar()


@contextmanager
def without_a_dead_hub(spec: BackboneSpec) -> Iterator[None]:
    """Within this context, a hub that cannot be reached is asked nothing: what is on disk counts.

    The library would try again for each file, for a minute in all.
    """
    settings: Any = huggingface_hub.constants
    if settings.HF_HUB_OFFLINE or os.path.isdir(spec.model) or _answers(spec):
        yield
        return
    settings.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        settings.HF_HUB_OFFLINE = False


def _answers(spec: BackboneSpec) -> bool:
    """Whether the hub answers about a model, even if it says that there is none."""
    try:
        url = huggingface_hub.hf_hub_url(spec.model, "config.json", revision=spec.revision)
        huggingface_hub.get_hf_file_metadata(url)
    except (HfHubHTTPError, HFValidationError):  # the latter for a name that no model can have
        return True
    except Exception:  # whichever HTTP client the library has
        return False
    return True
