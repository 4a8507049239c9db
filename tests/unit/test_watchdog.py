"""What works in the folder ends when pytest was killed, and only then."""

import subprocess
import sys
from pathlib import Path

import pytest

WATCHDOG = Path(__file__).parents[1] / "watchdog.py"


@pytest.mark.parametrize(("said", "ended"), [(b"", True), (b"done", False)])
def test_it_kills_what_works_in_the_folder_unless_all_went_well(tmp_path, said, ended):
    command = [sys.executable, "-S", "-c", "print(flush=True); input()"]
    with (
        subprocess.Popen([*command, f"--files={tmp_path}/mine/x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as inside,
        subprocess.Popen([*command, f"--files={tmp_path}/other/x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outside,
    ):
        assert inside.stdout.readline() and outside.stdout.readline()
        subprocess.run([sys.executable, "-S", WATCHDOG, f"{tmp_path}/mine/"], input=said, check=True)
        assert (inside.wait(20) == -9) if ended else (inside.poll() is None)
        assert outside.poll() is None
        for process in (inside, outside):
            process.kill()
