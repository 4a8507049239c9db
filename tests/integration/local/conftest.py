"""Projects that are taken down at the end of each test, whatever happened in it."""

import pytest
from local_kit import Project, Quiet, supervisors


@pytest.fixture
def make_project(tmp_path):
    made = []

    def make(name="project"):
        made.append(Project(tmp_path / name))
        return made[-1]

    yield make
    for project in made:
        project.target.down(Quiet())
        assert project.processes() == []
        assert supervisors(project) == []


@pytest.fixture
def project(make_project):
    return make_project()
