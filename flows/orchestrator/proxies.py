"""Proxies that the environment names: none is asked for this machine's own addresses."""

import os
from urllib.request import getproxies_environment

from raee.errors import InputError

_HERE = ("127.0.0.1", "localhost")
_NAMES = ("no_proxy", "NO_PROXY")
"""The first of both counts, and not everything reads it."""


def pass_by_proxies() -> None:
    """Let this process, and all that it starts, reach a server on loopback without a proxy.

    Raises InputError if a proxy is named that Prefect's client cannot ask.
    """
    without = next((os.environ[name] for name in _NAMES if os.environ.get(name)), "")
    if without.strip() != "*":
        hosts = [host for host in without.split(",") if host.strip()]
        hosts += [host for host in _HERE if host not in hosts]
        os.environ.update(dict.fromkeys(_NAMES, ",".join(hosts)))
    if named := sorted(name for name in getproxies_environment() if name != "no"):
        _check_usable(named)


def _check_usable(named: list[str]) -> None:
    import httpx  # Prefect's client

    try:
        httpx.Client(verify=False).close()
    except Exception as error:  # for SOCKS it is an ImportError
        names = " or ".join(f"{name.upper()}_PROXY" for name in named)
        raise InputError(f"{names} in the environment cannot be used: {error}") from error
