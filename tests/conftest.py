"""For all tests: what Hypothesis draws is the same in each run, so that a green change stays green; no server outlives pytest; and how much
was killed is told.

`HYPOTHESIS_PROFILE=explore pytest …` draws anew each time: to look for what the fixed draws miss. A test that kills says how often
by `record_property("killed", n)`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_terminal_summary(terminalreporter):
    """The sum over all tests that passed, on one line."""
    reports = terminalreporter.getreports("passed")
    killed = sum(count for report in reports if report.when == "call" for name, count in report.user_properties if name == "killed")
    if killed:
        terminalreporter.write_line(f"kill -9 at {killed} points: each time the same command completed and nothing was left over")


@pytest.fixture(scope="session", autouse=True)
def watchdog(tmp_path_factory):
    """Ends what works in this session's temporary folder, should pytest be killed before its fixtures can."""
    command = [sys.executable, "-S", str(Path(__file__).with_name("watchdog.py")), f"{tmp_path_factory.getbasetemp()}/"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        yield
        process.communicate(b"done")
