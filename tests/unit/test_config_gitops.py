"""The files of `init --gitops`: they parse, name what they should, and leave to an autoscaler what is its own."""

import re
import shutil
import subprocess

import pytest
import yaml

from deployctl.config import gitops
from deployctl.core.project import Environment

PLACES = (
    Environment(name="prod", on="kubernetes", namespace="search", writer="gitops", branch="live"),
    Environment(name="dev", on="kubernetes", namespace="search-dev", writer="gitops", path="out/dev/"),
)


def made(controller="argocd", ci="github", repository="git@host.test:team/echo.git"):
    return {name: data.decode() for name, data in gitops.files(controller, ci, "echo", PLACES, repository=repository, version="0.1.0").items()}


@pytest.mark.parametrize("controller", gitops.CONTROLLERS)
@pytest.mark.parametrize("ci", gitops.CI)
def test_every_file_parses_and_no_word_is_left(controller, ci):
    for name, text in made(controller, ci).items():
        assert list(yaml.safe_load_all(text))
        assert re.findall(r"@[A-Z]+@", text) == [], name


def test_the_applications_of_argo_cd():
    (prod,) = yaml.safe_load_all(made()["clusters/prod/argocd.yaml"])
    assert (prod["apiVersion"], prod["kind"]) == ("argoproj.io/v1alpha1", "Application")
    assert prod["spec"]["source"] == {"repoURL": "git@host.test:team/echo.git", "targetRevision": "live", "path": "rendered/prod"}
    assert prod["spec"]["destination"]["namespace"] == "search"
    assert prod["spec"]["ignoreDifferences"] == [{"group": "apps", "kind": "Deployment", "managedFieldsManagers": ["kube-controller-manager"]}]
    assert {"ServerSideApply=true", "RespectIgnoreDifferences=true"} <= set(prod["spec"]["syncPolicy"]["syncOptions"])
    (dev,) = yaml.safe_load_all(made()["clusters/dev/argocd.yaml"])
    assert dev["spec"]["source"]["path"] == "out/dev"
    assert dev["metadata"]["name"] == "echo-dev"


def test_the_objects_of_flux():
    source, kustomization = yaml.safe_load_all(made("flux")["clusters/prod/flux.yaml"])
    assert (source["apiVersion"], source["kind"]) == ("source.toolkit.fluxcd.io/v1", "GitRepository")
    assert source["spec"]["url"] == "ssh://git@host.test/team/echo.git"
    assert (kustomization["apiVersion"], kustomization["kind"]) == ("kustomize.toolkit.fluxcd.io/v1", "Kustomization")
    assert kustomization["spec"]["path"] == "./rendered/prod"
    assert kustomization["spec"]["sourceRef"] == {"kind": "GitRepository", "name": source["metadata"]["name"]}


def test_an_unknown_repository_is_marked():
    assert "unresolved.invalid" in made(repository=None)["clusters/prod/argocd.yaml"]


@pytest.mark.parametrize("address", ["https://host.test/a.git", "ssh://git@host.test/a.git", "/srv/a.git"])
def test_other_addresses_stay_as_they_are(address):
    assert gitops.ssh_url(address) == address


def steps(text):
    return yaml.safe_load(text)["jobs"]["review"]["steps"]


def test_the_github_workflow_gives_a_fork_nothing():
    text = made()[".github/workflows/deployctl.yml"]
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"pull_request": None}  # YAML 1.1 reads `on` as true; pull_request_target would hand a fork our token
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    checkout = steps(text)[0]
    assert checkout["with"] == {"fetch-depth": 0, "persist-credentials": False}
    # `python -m` would import a module of that name from the pull request.
    assert not any("python -m" in step.get("run", "") for step in steps(text))
    # A title or branch name in a script would be run: only values that are no free text are put into the environment.
    assert set(re.findall(r"\$\{\{\s*([^}]+?)\s*\}\}", text)) == {
        "github.ref", "!cancelled()", "github.event.pull_request.base.sha", "github.token", "github.event.pull_request.number",
        "!cancelled() && github.event.pull_request.head.repo.full_name == github.repository",
    }  # fmt: skip
    assert not any("${{" in step.get("run", "") for step in steps(text))


@pytest.mark.parametrize("ci", gitops.CI)
def test_every_environment_is_checked_and_compared(ci):
    text = made(ci=ci)[gitops.CI[ci][1]]
    for place in PLACES:
        assert f"deployctl render --env {place.name} --out {place.folder} --check" in text
    assert "for env in prod dev; do" in text


@pytest.mark.parametrize("ci", gitops.CI)
def test_the_scripts_are_shell(ci):
    data = yaml.safe_load(made(ci=ci)[gitops.CI[ci][1]])
    scripts = [s["run"] for s in data["jobs"]["review"]["steps"] if "run" in s] if ci == "github" else data["deployctl"]["script"]
    for script in scripts:
        assert subprocess.run(["bash", "-n", "-c", script], capture_output=True, check=False).returncode == 0, script


def test_actionlint_has_nothing_to_say(tmp_path):
    if shutil.which("actionlint") is None:
        pytest.skip("actionlint is not on PATH (go install github.com/rhysd/actionlint/cmd/actionlint)")
    file = tmp_path / "workflow.yml"
    file.write_text(made()[".github/workflows/deployctl.yml"])
    done = subprocess.run(["actionlint", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
