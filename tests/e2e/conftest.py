"""Collects the text scripts of this folder; `textscript.py` says what they look like."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
import textscript


class ScriptFile(pytest.File):
    """A script as a test module with one test."""

    def collect(self):
        yield ScriptItem.from_parent(self, name=self.path.stem)


class ScriptItem(pytest.Item):
    """One script."""

    def runtest(self):
        script = textscript.parse(self.path.read_text())
        for program in script.needs:
            if shutil.which(program, path=f"{textscript.BIN}:{os.environ['PATH']}") is None:
                if program in os.environ.get("DEPLOYCTL_REQUIRE", "").split(","):
                    pytest.fail(f"{program} is required and missing")
                pytest.skip(f"{program} is not installed")
        with tempfile.TemporaryDirectory(prefix="deployctl-e2e-") as base:
            folder = Path(base) / "work"
            folder.mkdir()
            try:
                textscript.play(script, folder)
            finally:
                for path in folder.rglob("*"):
                    if path.is_dir() and not path.is_symlink():
                        path.chmod(stat.S_IRWXU)

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, (textscript.Mismatch, ValueError)):
            return f"{self.path.name}: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self):
        return self.path, 0, f"e2e script {self.name}"


def pytest_collect_file(parent, file_path):
    if file_path.suffix == ".txt" and file_path.parent == Path(__file__).parent:
        return ScriptFile.from_parent(parent, path=file_path)
    return None
