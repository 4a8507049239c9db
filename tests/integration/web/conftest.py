"""Headless Chromium: skipped visibly where missing, failed where DEPLOYCTL_REQUIRE names chromium."""

import os
import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Loads a URL and returns the document after all loading is done."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if binary is None:
        if "chromium" in os.environ.get("DEPLOYCTL_REQUIRE", "").split(","):
            pytest.fail("chromium is not installed, and DEPLOYCTL_REQUIRE names it")
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    profile = tmp_path_factory.mktemp("chromium")

    def load(url: str, *flags: str) -> str:
        command = [
            *(binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"),
            *("--disable-background-networking", "--disable-component-update", "--no-first-run", "--virtual-time-budget=2000"),
            *flags,
            *("--dump-dom", url),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return load
