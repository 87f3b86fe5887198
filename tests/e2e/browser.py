"""A real Chromium, as Debian ships it. Nothing is ever downloaded."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, ViewportSize, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--font-render-hinting=none",
]
PROGRAMS = (  # the shell first: a whole desktop browser has been seen to hang, and it is slower
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
)
VIEWPORT: ViewportSize = {"width": 1360, "height": 860}


def chromium() -> str | None:
    """The program: `CHROMIUM` in the environment, then the usual names on the path."""
    names = (os.environ.get("CHROMIUM"), *PROGRAMS)
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextmanager
def launched(program: str) -> Iterator[Browser]:
    # Playwright's sync API runs an event loop in this thread; our ORM calls here are plain ones.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
            yield browser
            browser.close()
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
