"""Checks Prefect's settings before Prefect is imported: if they are broken, one line says so.

Prefect reads them once, when it is first imported, out of the environment, `.env`, `prefect.toml`,
`pyproject.toml` and a profile; a mistake there would be a traceback from the middle of Prefect.
"""

import errno
import io
import os
import re
import sys
import tomllib
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raee.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError

_API, _PROFILE = "PREFECT_API_URL", "PREFECT_PROFILE"
_HERE = (".env", "prefect.toml", "pyproject.toml")
"""Files that Prefect reads in the folder in which a command is given."""


def read_settings() -> None:
    """Raises InputError if Prefect's settings cannot be read.

    An empty address of a server, or an empty name of a profile, counts as not set.
    """
    for name in (_API, _PROFILE):
        if not os.environ.get(name, "something").strip():
            del os.environ[name]
    if "prefect.context" in sys.modules:  # it has read them
        return
    for path in (Path(name) for name in _HERE if os.path.isfile(name)):
        _toml(path) if path.suffix else _text(path)
    warned = io.StringIO()
    with redirect_stderr(warned), warnings.catch_warnings():
        # Prefect would warn at length of what is one line here, and of a home that need not exist
        # yet.
        warnings.filterwarnings("ignore", message="Failed to create the Prefect home")
        _read()
    sys.stderr.write(warned.getvalue())


def server_url() -> str | None:
    """The address of the server that the settings name; None if they name none."""
    from prefect.settings import get_current_settings

    return (get_current_settings().api.url or "").strip() or None


def home() -> Path:
    """The folder in which local servers keep their records.

    Raises InputError if it can neither be made nor written to.
    """
    from prefect.settings import get_current_settings

    folder = get_current_settings().home
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(
            f"PREFECT_HOME {folder}: {error.strerror}; a local Prefect server keeps its records in "
            "that folder"
        ) from error
    return folder


def _read() -> None:
    from prefect.settings import Settings
    from prefect.settings.constants import DEFAULT_PROFILES_PATH
    from prefect.settings.sources import _get_profiles_path
    from pydantic import ValidationError

    path = _get_profiles_path()
    own = _profiles(path)
    known = _profiles(DEFAULT_PROFILES_PATH) | own
    active = os.environ.get(_PROFILE) or str(_toml(path).get("active", "ephemeral"))
    if active not in known:
        raise InputError(
            f"{_PROFILE if _PROFILE in os.environ else path} names the Prefect profile {active!r}, "
            f"which is not there; there are {', '.join(sorted(known))}"
        )
    try:
        Settings()
    except ValidationError as error:
        name, why = _invalid(error)
        if name in os.environ:
            where = "the environment"
        else:
            where = str(path) if name in own.get(active, {}) else f"one of {', '.join(_HERE)}"
        raise InputError(f"Prefect's setting {name} in {where}: {why}") from error
    except Exception as error:
        raise InputError(
            f"Prefect's settings cannot be read: {_named(str(error))}; they stand in the "
            f"environment, {path}, {', '.join(_HERE)}"
        ) from error


def _profiles(path: Path) -> dict[str, dict[str, Any]]:
    """The settings of each profile of a file."""
    found = _toml(path).get("profiles", {})
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise InputError(
            f"{path}: a Prefect profile is a table of settings, such as [profiles.local]"
        )
    return found


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: this is no TOML, and Prefect reads it: {error}") from error


def _text(path: Path) -> str:
    """The content of a file; empty if there is none."""
    try:
        return path.read_text("utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read, and Prefect reads it: {why}") from error


def _invalid(error: "ValidationError") -> tuple[str, str]:
    """The variable of the first value that a settings class refuses, and why."""
    from prefect.settings.base import PrefectBaseSettings

    first = error.errors()[0]
    field = str(first["loc"][0]).upper()
    prefixes = [
        str(kind.model_config.get("env_prefix", ""))
        for kind in _kinds(PrefectBaseSettings)
        if kind.__name__ == error.title
    ]
    name = field if field.startswith("PREFECT_") else "".join([*prefixes[:1], field])
    return name, first["msg"]


def _kinds(kind: type[Any]) -> list[type[Any]]:
    """The subclasses of a class, at any depth."""
    return [found for each in kind.__subclasses__() for found in (each, *_kinds(each))]


def _named(message: str) -> str:
    """A message on a field, with the variables that set it if there are any."""
    field = re.search('field "([^"]+)"', message)
    if field is None:
        return message
    end = f"_{field[1].upper()}"
    found = [name for name in os.environ if name.startswith("PREFECT_") and name.endswith(end)]
    return f"{message} ({', '.join(found)})" if found else message
