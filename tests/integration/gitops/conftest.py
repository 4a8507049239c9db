"""A project in a real git repository, without the person's or the machine's git configuration."""

from __future__ import annotations

import os

import pytest
from gitops_kit import Work, project


@pytest.fixture(autouse=True)
def plain_git(tmp_path_factory, monkeypatch):
    """An identity, and nothing else."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.test\n[init]\n\tdefaultBranch = main\n")
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return home


@pytest.fixture
def work(tmp_path) -> Work:
    return project(tmp_path / "project")
