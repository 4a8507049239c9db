"""Folders for work under way end with the work, and those of a killed process at the next work."""

import os
import subprocess
import sys

import pytest

from deployctl import scratch


def test_a_folder_ends_with_the_work_however_that_ended(tmp_path):
    with pytest.raises(ValueError), scratch.folder(tmp_path / "home") as made:
        (made / "file").write_text("x")
        raise ValueError
    assert list((tmp_path / "home").iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_lives_stays(tmp_path):
    code = "import os, sys; from pathlib import Path; from deployctl import scratch; scratch.new(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == -9
    (left,) = tmp_path.iterdir()
    mine = scratch.new(tmp_path)
    (tmp_path / "notes").mkdir()
    other = scratch.new(tmp_path)
    assert not left.exists()
    assert {p.name for p in tmp_path.iterdir()} == {mine.name, other.name, "notes"}
    assert mine.name.startswith(f"{os.getpid()}-")
