"""A real Chromium, headless, that reads a page and takes pictures of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str:
    """The browser's path; the test is skipped, with the reason, where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium): the page was not opened in a browser")
    return found


def run(page: Path, profile: Path, *arguments: str, timeout: float = 120) -> str:
    """Open the page in a new, empty profile; the browser's standard output."""
    command = [chromium(), *FLAGS, f"--user-data-dir={profile}", *arguments, page.as_uri()]
    environment = {**os.environ, "HOME": str(profile)}
    done = subprocess.run(command, capture_output=True, timeout=timeout, env=environment, check=True)
    return done.stdout.decode("utf-8")


def dom(page: Path, profile: Path, *arguments: str) -> str:
    """The page's document after its script has run, as HTML."""
    return run(page, profile, "--virtual-time-budget=4000", *arguments, "--dump-dom")


def screenshot(page: Path, profile: Path, target: Path, size: tuple[int, int], *arguments: str) -> bytes:
    """A picture of the page at a window size, PNG."""
    run(page, profile, f"--window-size={size[0]},{size[1]}", f"--screenshot={target}", *arguments)
    return target.read_bytes()
