"""Releases as commits through the command line: promote, up, rollback, history, diff for a pull request, and a fresh clone in CI."""

import subprocess

import pytest
import yaml

from deployctl.config import locks
from deployctl.core import codec
from deployctl.core.plan import Plan
from deployctl.errors import MachineError, ModelError, NotFound, ProjectError, Refused
from deployctl.testing import builders
from deployctl.wiring import LazyToolbox


def trailers(work, commit="HEAD"):
    text = work.git("show", "-s", "--format=%(trailers:only,unfold)", commit)
    return dict(line.split(": ", 1) for line in text.splitlines() if line)


def test_promote_commits_lock_plan_file_list_and_manifests_and_nothing_else(work):
    bundle = work.in_dev(0.01)
    work.run("render", "--env", "prod")
    result = work.promote("--reason", "it is   Tuesday")
    assert result.stdout.strip() == work.head()
    names = work.git("show", "--name-only", "--format=", "HEAD").split()
    assert {n.split("/")[0] for n in names} == {"lock", "rendered"}
    assert {"lock/prod.lock", "lock/prod.plan.json", f"lock/bundles/{bundle[7:23]}.json", "rendered/prod/deployment-echo.yaml"} <= set(names)
    plan = codec.loads(Plan, (work.root / "lock/prod.plan.json").read_text(), where="plan")
    assert trailers(work) == {
        "Deployctl-Environment": "prod",
        "Deployctl-Action": "promote",
        "Deployctl-Release": plan.digest,
        "Deployctl-Bundle": bundle,
        "Deployctl-Evidence": "none",
        "Deployctl-From": "dev",
    }
    assert "it is Tuesday" in work.git("show", "-s", "--format=%b")
    assert work.lock("prod").bundle == plan.bundle == bundle
    assert work.git("status", "--short") == ""
    assert all(yaml.safe_load(d)["metadata"]["annotations"]["deployctl/writer"] == "gitops" for d in work.rendered().values())


def test_promote_twice_makes_one_commit(work):
    work.in_dev(0.01)
    work.promote()
    before = work.head()
    assert work.promote().stdout == ""
    assert work.head() == before


def test_promote_without_proof_for_the_device_is_refused_and_writes_nothing(work):
    work.in_dev(0.01)
    before = work.head()
    error = work.error("promote", "dev", "prod", "--yes")
    assert (error.code, error.exit_code) == ("unproven", 5)
    assert work.head() == before and work.git("status", "--short") == ""


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (("promote", "dev", "dev"), ProjectError, "promote-usage"),
        (("promote", "dev", "nowhere"), ProjectError, "env-unknown"),
        (("promote", "prod", "dev"), ProjectError, "not-gitops"),
        (("promote", "dev", "prod"), Refused, "nothing-to-promote"),
        (("rollback", "--env", "prod"), NotFound, "nothing-to-roll-back"),
        (("rollback", "--env", "prod", "--live"), ProjectError, "not-confirmed"),
        (("rollback", "--env", "prod", "--live", "--confirm=other"), ProjectError, "not-confirmed"),
        (("up", "--env", "dev", "--push"), ProjectError, "flag-invalid"),
        (("up", "--env", "prod", "--tune"), ProjectError, "flag-invalid"),
        (("scale", "3", "--env", "prod"), NotFound, "nothing-released"),
        (("scale", "3", "--env", "prod", "--for", "2h"), ProjectError, "scale-usage"),
        (("scale", "3", "--env", "dev", "--push"), ProjectError, "flag-invalid"),
    ],
)
def test_what_makes_no_sense_says_so(work, words, kind, code):
    error = work.error(*words, "--yes")
    assert isinstance(error, kind) and error.code == code


def test_uncommitted_input_is_refused(work):
    work.in_dev(0.01)
    (work.root / "deploy.yaml").write_text((work.root / "deploy.yaml").read_text().replace("40/s", "50/s"))
    error = work.error("promote", "dev", "prod", "--yes", "--unverified")
    assert isinstance(error, Refused) and error.code == "git-dirty" and "deploy.yaml" in error.message
    work.git("rm", "-q", "--cached", "deploy.yaml")
    work.git("commit", "-qm", "out")
    assert work.error("promote", "dev", "prod", "--yes", "--unverified").code == "git-dirty"


def test_open_digests_are_refused(work):
    path = LazyToolbox(work.root, "prod").workspace.lock("prod")
    path.unlink()
    work.git("commit", "-qam", "no image")
    work.in_dev(0.01)
    error = work.error("promote", "dev", "prod", "--yes", "--unverified")
    assert error.code == "unresolved" and "image" in error.message
    assert not path.exists()


def test_rollback_restores_every_byte_and_holds_what_it_left(work):
    first = work.in_dev(0.01)
    work.promote()
    before = work.rendered()
    second = work.in_dev(0.02)
    work.promote()
    assert work.rendered() != before
    result = work.run("rollback", "--env", "prod", "--yes", "--reason", "too slow")
    assert result.exit_code == 0 and result.stdout.strip() == work.head()
    assert work.rendered() == before
    assert work.lock("prod").bundle == first
    assert len(work.lock("prod").held) == 1
    assert trailers(work)["Deployctl-Action"] == "rollback"
    assert work.run("render", "--env", "prod", "--out", str(work.root / "rendered/prod"), "--check").exit_code == 0
    assert work.error("promote", "dev", "prod", "--yes", "--unverified").code == "release-on-hold"
    held = work.lock("prod").held[0]
    assert work.run("release", "allow", held[7:19], "--env", "prod").exit_code == 0
    work.promote()
    assert work.lock("prod").bundle == second
    again = work.run("rollback", "1", "--env", "prod", "--yes")
    assert again.exit_code == 0 and work.rendered() == before


def test_rollback_says_that_deploy_yaml_moved_on(work):
    work.in_dev(0.01)
    work.promote()
    (work.root / "deploy.yaml").write_text((work.root / "deploy.yaml").read_text().replace("2..6", "3..6"))
    work.git("commit", "-qam", "more")
    work.in_dev(0.02)
    work.promote()
    result = work.run("rollback", "--env", "prod", "--yes")
    assert "deploy.yaml changed since that release" in result.stderr
    assert work.error("render", "--env", "prod", "--out", str(work.root / "rendered/prod"), "--check").code == "render-drift"


def test_history_lists_the_release_commits(work):
    work.in_dev(0.01)
    work.promote()
    work.in_dev(0.02)
    work.promote()
    work.run("rollback", "--env", "prod", "--yes")
    data = yaml.safe_load(work.run("history", "--env", "prod", "-o", "json").stdout)["items"]
    assert [r["revision"] for r in data] == [1, 2, 3]
    assert data[0]["content"] == data[2]["content"] != data[1]["content"]
    assert [r["held"] for r in data] == [False, True, False]
    assert "Roll echo in prod back to revision 1" in work.run("history", "--env", "prod").stdout


def test_up_commits_what_is_packaged(work, monkeypatch):
    tools = LazyToolbox(work.root, "prod")
    bundle = builders.sleep_bundle(tools.blobs, tools.bundles, 0.03)
    monkeypatch.setattr("deployctl.flows.package.package", lambda *a, **k: bundle)
    result = work.run("up", "--env", "prod", "--yes", "--unverified")
    assert result.exit_code == 0, result.exception
    assert trailers(work)["Deployctl-Action"] == "up"
    assert work.lock("prod").bundle == bundle.digest
    assert work.error("up", "--env", "prod", "--yes").code == "unproven"


def test_up_on_a_machine_that_cannot_package_takes_the_lock(work, monkeypatch):
    def cannot(*_args, **_kwargs):
        raise MachineError("no torch", hint="x", code="torch-missing")

    monkeypatch.setattr("deployctl.flows.package.package", cannot)
    assert work.error("up", "--env", "prod", "--yes", "--unverified").code == "torch-missing"
    work.in_dev(0.01)
    work.promote()
    (work.root / "deploy.yaml").write_text((work.root / "deploy.yaml").read_text().replace("2..6", "3..6"))
    work.git("commit", "-qam", "more")
    result = work.run("up", "--env", "prod", "--yes", "--unverified")
    assert result.exit_code == 0, result.exception
    assert "takes the bundle that the lock names" in result.stderr
    assert yaml.safe_load(work.rendered()["deployment-echo.yaml"])["spec"]["replicas"] == 3


def test_push_goes_to_the_shared_repository(work, tmp_path):
    bare = tmp_path / "shared.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    work.git("remote", "add", "origin", str(bare))
    work.in_dev(0.01)
    work.promote("--push")
    assert subprocess.run(["git", "rev-parse", "main"], cwd=bare, capture_output=True, text=True, check=True).stdout.strip() == work.head()


def test_another_branch_is_committed_to_and_said(work):
    work.in_dev(0.01)
    work.git("switch", "-qc", "release-echo")
    assert "this is live once release-echo is merged there" in work.promote().stderr


@pytest.fixture
def clone(work, tmp_path):
    """A fresh clone, as CI has it: no bundle content, no cache."""
    work.in_dev(0.01)
    work.promote()
    root = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(work.root), str(root)], check=True)
    return type(work)(root)


def test_a_fresh_clone_checks_and_compares_without_any_content(clone):
    assert not (clone.root / ".deployctl").exists()
    result = clone.run("render", "--env", "prod", "--out", str(clone.root / "rendered/prod"), "--check")
    assert result.exit_code == 0, result.exception
    assert clone.diff("--base", "HEAD")[0] == 0
    assert clone.diff("--base", "HEAD~1")[0] == 1


def test_a_changed_file_list_is_refused(clone):
    (path,) = (clone.root / "lock" / "bundles").iterdir()
    path.write_text(path.read_text().replace('"max_batch": 8', '"max_batch": 9'))
    error = clone.error("render", "--env", "prod")
    assert isinstance(error, ModelError) and error.code == "blob-damaged"


def test_a_tampered_plan_file_is_drift(clone):
    path = clone.root / "lock" / "prod.plan.json"
    path.write_text(path.read_text().replace('"replicas": 2', '"replicas": 5'))
    error = clone.error("render", "--env", "prod", "--out", str(clone.root / "rendered/prod"), "--check")
    assert error.code == "render-drift" and "prod.plan.json" in error.message


def test_diff_for_a_pull_request_is_summary_first_and_the_same_each_time(clone):
    (clone.root / "deploy.yaml").write_text((clone.root / "deploy.yaml").read_text().replace("2..6", "4..6").replace("40/s", "55/s"))
    code, text = clone.diff("--base", "HEAD", "-o", "markdown")
    assert code == 1
    assert (code, text) == clone.diff("--base", "HEAD", "-o", "markdown")
    lines = text.splitlines()
    assert lines[0].startswith("### `echo` in `prod`: NOT proven")
    assert "| replicas | `2, fixed` | `4, fixed` |" in lines
    assert "| predicted p99 | `unknown` | `unknown` |" in lines
    assert any(line.startswith("| traffic |") for line in lines)
    assert text.index("| replicas") < text.index("<details>")
    assert "+  replicas: 4" in lines


def test_diff_runs_no_user_code(clone, tmp_path):
    (clone.root / "my_model.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    text = (clone.root / "deploy.yaml").read_text().replace('"onnx:model.onnx"', '"python:my_model:build"')
    (clone.root / "deploy.yaml").write_text(text)
    clone.run("diff", "--env", "prod", "--base", "HEAD", "-o", "markdown")
    clone.run("render", "--env", "prod")
    assert not (tmp_path / "ran").exists()


def test_markdown_needs_a_base(clone):
    assert clone.run("diff", "--env", "prod", "-o", "markdown").exit_code == 2
    assert clone.error("diff", "--env", "prod", "--base", "nope").code == "git-revision-unknown"


def test_held_contents_survive_a_promotion(work):
    work.in_dev(0.01)
    work.promote()
    work.in_dev(0.02)
    work.promote()
    work.run("rollback", "--env", "prod", "--yes")
    held = work.lock("prod").held
    work.in_dev(0.03)
    work.promote()
    assert work.lock("prod").held == held
    assert locks.read(work.root / "lock/prod.lock", "prod").image == work.lock("prod").image is not None


def test_a_proof_for_the_targets_device_goes_along_and_needs_no_flag(work, tmp_path):
    proof = work.tuned_in_dev("pool-gpu-l4")
    result = work.run("promote", "dev", "prod", "--yes")
    assert result.exit_code == 0, result.exception
    assert trailers(work)["Deployctl-Evidence"] == proof
    assert "Predicted p99: 40 ms at 40/s; proven." in work.git("show", "-s", "--format=%b")
    assert work.lock("prod").tuned == work.lock("dev").tuned
    (hpa,) = [yaml.safe_load(d) for n, d in work.rendered().items() if n.startswith("horizontalpodautoscaler")]
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (2, 4)
    assert "replicas" not in yaml.safe_load(work.rendered()["deployment-echo.yaml"])["spec"]
    # CI, which has neither the bundle's content nor its sample, comes to the same verdict.
    root = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(work.root), str(root)], check=True)
    clone = type(work)(root)
    assert clone.run("render", "--env", "prod", "--out", str(root / "rendered/prod"), "--check").exit_code == 0
    (root / "deploy.yaml").write_text((root / "deploy.yaml").read_text().replace("2..6", "3..6"))
    code, text = clone.diff("--base", "HEAD", "-o", "markdown")
    assert code == 1 and text.startswith("### `echo` in `prod`: proven on this device and traffic")


def test_a_proof_for_another_device_is_refused_and_named(work):
    work.tuned_in_dev("cpu-2c")
    error = work.error("promote", "dev", "prod", "--yes")
    assert (error.code, error.exit_code) == ("unproven", 5)
    assert "the proof is for device cpu-2c, this is pool-gpu-l4" in error.why
    assert work.promote().exit_code == 0
    assert trailers(work)["Deployctl-Evidence"] == "none"


def counts(work):
    """(fixed replicas, autoscaler's bounds) of the committed manifests; None where there is none."""
    deployment = yaml.safe_load(work.rendered()["deployment-echo.yaml"])
    hpas = [yaml.safe_load(d)["spec"] for n, d in work.rendered().items() if n.startswith("horizontalpodautoscaler")]
    return deployment["spec"].get("replicas"), [(s["minReplicas"], s["maxReplicas"]) for s in hpas]


def test_scale_is_a_commit_that_changes_counts_only_and_reset_takes_it_back(work):
    proof = work.tuned_in_dev("pool-gpu-l4")
    assert work.run("promote", "dev", "prod", "--yes").exit_code == 0
    before = work.rendered()
    assert counts(work) == (None, [(2, 4)])
    result = work.run("scale", "5", "--env", "prod", "--yes", "--reason", "a   sale")
    assert result.exit_code == 0 and result.stdout.strip() == work.head(), result.exception
    assert counts(work) == (5, [])
    assert (trailers(work)["Deployctl-Action"], trailers(work)["Deployctl-Evidence"]) == ("scale", proof)
    assert work.git("show", "-s", "--format=%s").strip() == "Scale echo in prod to 5" and "a sale" in work.git("show", "-s", "--format=%b")
    assert {n.split("/")[0] for n in work.git("show", "--name-only", "--format=", "HEAD").split()} == {"lock", "rendered"}
    assert work.run("render", "--env", "prod", "--out", str(work.root / "rendered/prod"), "--check").exit_code == 0
    head = work.head()
    assert work.run("scale", "5", "--env", "prod", "--yes", "--reason", "a   sale").stdout == "" and work.head() == head
    told = yaml.safe_load(work.run("scale", "3..6", "--env", "prod", "--yes", "-o", "json").stdout)
    assert (told["commit"], told["min_replicas"], told["max_replicas"]) == (work.head(), 3, 6) and counts(work) == (None, [(3, 6)])
    assert work.run("scale", "--reset", "--env", "prod", "--yes").exit_code == 0
    assert work.rendered() == before and work.lock("prod").override is None


def test_scale_keeps_limits_and_asks(work):
    work.tuned_in_dev("pool-gpu-l4")
    assert work.run("promote", "dev", "prod", "--yes").exit_code == 0
    head = work.head()
    assert work.error("scale", "9", "--env", "prod", "--yes").code == "over-limit"
    unasked = work.run("scale", "1", "--env", "prod")
    assert unasked.exception.code == "not-confirmed" and "below the 2 replicas that the SLO was proven with" in unasked.stderr
    assert work.head() == head and work.git("status", "--short") == ""


def test_scale_releases_nothing_else_by_the_way(work):
    work.in_dev(0.01)
    work.promote()
    (work.root / "deploy.yaml").write_text((work.root / "deploy.yaml").read_text().replace("100ms", "90ms"))
    work.git("commit", "-qam", "a stricter promise")
    head = work.head()
    error = work.error("scale", "3", "--env", "prod", "--yes")
    assert (error.code, error.exit_code) == ("scale-changes-more", 5)
    assert work.head() == head and work.git("status", "--short") == ""
