"""What the repository promises a newcomer: commands in texts exist, locks are hashed and name no host, nothing names a machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from deployctl.cli import VERBS

ROOT = Path(__file__).resolve().parents[2]


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / n for n in names.split("\0") if n and (ROOT / n).is_file()]


@pytest.mark.parametrize("lock", sorted(p.name for p in (ROOT / "locks").glob("*.txt")))
def test_locks_are_hashed_and_name_no_host(lock):
    text = (ROOT / "locks" / lock).read_text()
    assert not re.search(r"https?://|--index-url|--find-links|--extra-index-url", text)
    entries = re.split(r"\n(?=[a-zA-Z0-9])", text)
    for entry in entries:
        if "==" in entry.split("\n")[0]:
            assert "--hash=sha256:" in entry, entry[:80]


def test_each_dependency_has_a_lower_bound():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()]
    for requirement in [r for g in groups for r in g]:
        assert re.search(r">=|==", requirement), requirement


def texts() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", texts(), ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_texts_exist(path):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.M))
    blocks = re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", path.read_text(), flags=re.S | re.M)
    inline = re.findall(r"`((?:make|deployctl) [^`\n]+)`", path.read_text())
    for line in [*(x for b in blocks for x in b.splitlines()), *inline]:
        line = line.strip().removeprefix("$ ")
        if m := re.match(r"make ([a-z][a-z-]*)", line):
            assert m[1] in targets, f"{line}: no such make target"
        if m := re.match(r"deployctl ([a-z][a-z-]*)", line):
            assert m[1] in VERBS, f"{line}: no such verb"


@pytest.mark.parametrize("path", texts(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_in_texts_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_nothing_names_a_home_or_a_scratch_folder():
    pattern = re.compile(r"(^|[^A-Za-z0-9_.])/(root|home/[a-z]+)/")
    hits = []
    for path in tracked():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".sh", ".json"} or path.name == "Makefile":
            hits += [f"{path.relative_to(ROOT)}: {line[:80]}" for line in path.read_text(errors="replace").splitlines() if pattern.search(line)]
    assert not hits, hits
