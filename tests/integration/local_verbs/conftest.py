"""One running project for the tests that only look and change counts; a fresh one where a test breaks things."""

import pytest
from verbs_kit import LiveProject


@pytest.fixture(scope="session")
def live(tmp_path_factory):
    project = LiveProject(tmp_path_factory.mktemp("live"))
    yield project
    project.clean()


@pytest.fixture
def fresh(tmp_path):
    project = LiveProject(tmp_path / "fresh")
    yield project
    project.marker.unlink(missing_ok=True)
    project.clean()
