"""Chromium without a window, which opens a page and says what stands there."""

import shutil
import time
from collections.abc import Sequence

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 60


def why_none() -> str | None:
    """Why there is no browser here; None where there is."""
    return None if _program() else "no Chromium here; `make services` installs it"


def read(url: str, wanted: Sequence[str], screenshot: str | None) -> str:
    """The text of a page once it has all that is wanted, or after a while whatever it has."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(url)
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            text = page.inner_text("body")
            if all(piece in text for piece in wanted):
                break
            page.wait_for_timeout(300)
        if screenshot:
            page.screenshot(path=screenshot)
        browser.close()
    return text


def _program() -> str | None:
    return next((path for name in _PROGRAMS if (path := shutil.which(name))), None)
