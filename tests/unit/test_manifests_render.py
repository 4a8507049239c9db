"""render: files for a review. What is written, what is removed, what --check refuses; the same bytes in every process."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from deployctl.cli.main import deployctl
from deployctl.config import locks
from deployctl.core import codec, manifests
from deployctl.core.lock import Lock, ScaleOverride
from deployctl.errors import DeployctlError, NotFound, ProjectError, Refused
from deployctl.flows import render as flow
from deployctl.testing import builders, kube
from deployctl.wiring import LazyToolbox

YAML = """version: 1
name: echo
model: {source: "onnx:model.onnx"}
slo: {latency: {p99: 100ms}}
traffic: {rate: 40/s}
environments:
  local: {}
  prod: {on: kubernetes, context: prod, namespace: team-a, pool: gpu-l4, limits: {replicas: 2..6}, store: "s3://bucket/prefix"}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "deploy.yaml").write_text(YAML)
    (tmp_path / "model.onnx").write_bytes(b"")
    return tmp_path


def packaged(project, t0_s=0.01, **lock):
    """A bundle in the project's store and a lock that names it and an image."""
    tools = LazyToolbox(project, "prod")
    bundle = builders.sleep_bundle(tools.blobs, tools.bundles, t0_s)
    locks.write(tools.workspace.lock("prod"), Lock(env="prod", bundle=bundle.digest, image=kube.IMAGE, **lock))
    return bundle


def run(project, *words):
    return CliRunner().invoke(deployctl, ["-C", str(project), "render", "--env", "prod", *words])


def test_before_anything_is_packaged_every_object_is_marked_and_check_refuses(project):
    out = project / "out"
    result = run(project, "--out", str(out))
    assert result.exit_code == 0, result.output
    objects = [yaml.safe_load(p.read_text()) for p in sorted(out.iterdir())]
    assert {o["metadata"]["annotations"]["deployctl/unresolved"] for o in objects} == {"bundle,image"}
    refused = run(project, "--out", str(out), "--check").exception
    assert isinstance(refused, Refused)
    assert (refused.code, refused.exit_code) == ("unresolved", 5)
    assert "bundle, image" in refused.message


def test_a_packaged_project_is_resolved_checked_and_stable(project):
    bundle = packaged(project)
    out = project / "out"
    assert run(project, "--out", str(out)).exit_code == 0
    first = {p.name: p.read_bytes() for p in out.iterdir()}
    assert b"unresolved:" not in b"".join(v for k, v in first.items() if not k.startswith("configmap"))
    assert yaml.safe_load(first["deployment-echo.yaml"])["spec"]["template"]["metadata"]["annotations"]["deployctl/bundle"] == bundle.digest
    assert run(project, "--out", str(out), "--check").exit_code == 0
    assert run(project, "--out", str(out)).exit_code == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == first


def test_the_bytes_do_not_depend_on_the_process(project):
    packaged(project)
    texts = []
    for seed in ("1", "2"):
        words = [sys.executable, "-m", "deployctl.cli.main", "-C", str(project), "render", "--env", "prod"]
        result = subprocess.run(
            words, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": f"UTC+{seed}"}, check=True
        )
        texts.append(result.stdout)
    assert texts[0] == texts[1]
    assert texts[0].count(b"\n---\n") + 1 == texts[0].count(b"\nkind: ") + texts[0].startswith(b"kind: ")


def test_check_finds_an_edit_a_removal_and_a_leftover_of_ours_and_nothing_of_others(project):
    packaged(project)
    out = project / "out"
    run(project, "--out", str(out))
    (out / "kustomization.yaml").write_text("resources: []\n")
    assert run(project, "--out", str(out), "--check").exit_code == 0
    pdb = out / "poddisruptionbudget-echo.yaml"
    text = pdb.read_text()
    for damage in (lambda: pdb.write_text(text.replace("1", "0")), pdb.unlink, lambda: (out / "secret-old.yaml").write_text(flow.HEADER)):
        damage()
        found = run(project, "--out", str(out), "--check").exception
        assert isinstance(found, Refused)
        assert (found.code, found.exit_code) == ("render-drift", 5)
        run(project, "--out", str(out))
    assert sorted(p.name for p in out.iterdir() if p.name in ("secret-old.yaml", "kustomization.yaml")) == ["kustomization.yaml"]
    assert pdb.read_text() == text


def test_an_autoscaler_that_is_no_longer_wanted_leaves_the_folder(project):
    packaged(project, override=ScaleOverride(min_replicas=2, max_replicas=5))
    out = project / "out"
    run(project, "--out", str(out))
    assert (out / "horizontalpodautoscaler-echo.yaml").exists()
    packaged(project, override=ScaleOverride(min_replicas=3, max_replicas=3))
    run(project, "--out", str(out))
    assert not (out / "horizontalpodautoscaler-echo.yaml").exists()
    assert yaml.safe_load((out / "deployment-echo.yaml").read_text())["spec"]["replicas"] == 3


def test_another_release_changes_only_what_it_must(project):
    packaged(project)
    out = project / "out"
    run(project, "--out", str(out))
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    packaged(project, 0.02)
    run(project, "--out", str(out))
    after = {p.name: p.read_bytes() for p in out.iterdir()}
    assert set(before) == set(after)
    assert {n for n in after if after[n] != before[n]} == {"configmap-release.yaml", "deployment-echo.yaml"}


def test_the_image_is_remembered_in_the_lock_and_must_be_pinned(project):
    packaged(project)
    other = kube.IMAGE.replace("a1", "c3")
    assert run(project, "--out", str(project / "out"), "--image", other).exit_code == 0
    assert locks.read(project / "lock" / "prod.lock", "prod").image == other
    assert other in (project / "out" / "deployment-echo.yaml").read_text()
    loose = run(project, "--image", "tritonserver:24.10-py3").exception
    assert isinstance(loose, ProjectError)
    assert loose.code == "image-not-pinned"
    assert locks.read(project / "lock" / "prod.lock", "prod").image == other


def test_what_infra_reads_is_the_same_service_for_pulumi(project):
    packaged(project)
    assert run(project, "--inputs", str(project / "inputs.json")).exit_code == 0
    inputs = codec.loads(manifests.Inputs, (project / "inputs.json").read_text())
    assert inputs.writer == "pulumi"
    assert {o["metadata"]["annotations"]["deployctl/writer"] for o in manifests.objects(inputs)} == {"pulumi"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("pool: gpu-l4, ", ""), "pool-missing"),
        (("s3://bucket", "file:///x"), "store-not-on-cluster"),
        (("prod:", "stage:"), "env-unknown"),
        (("on: kubernetes, context: prod, namespace: team-a, pool: gpu-l4, ", ""), "not-kubernetes"),
    ],
)
def test_what_cannot_be_rendered_says_why(project, change, code):
    (project / "deploy.yaml").write_text(YAML.replace(*change))
    found = run(project).exception
    assert isinstance(found, DeployctlError), found
    assert found.code == code
    assert found.hint


def test_a_bundle_that_the_lock_names_and_this_machine_lacks_is_not_called_unresolved(project):
    packaged(project)
    shutil.rmtree(project / ".deployctl")
    assert isinstance(run(project).exception, NotFound)


def test_check_needs_a_folder(project):
    assert run(project, "--check").exit_code == 2


def test_a_trap_in_the_manifests_is_refused(project):
    packaged(project)
    tools = LazyToolbox(project, "prod")
    from deployctl import config
    from deployctl.core import lint

    rendered = flow.render(config.load(project), "prod", tools)
    flow.write(rendered, project / "out")
    trap = next(iter(lint.lint([{"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2beta2", "metadata": {"name": "x"}}])))
    with pytest.raises(Refused) as caught:
        flow.check(dataclasses.replace(rendered, findings=(trap,)), project / "out")
    assert caught.value.code == "manifest-trap"


def test_the_pods_config_is_for_the_real_backends(project):
    packaged(project)
    out = project / "out"
    run(project, "--out", str(out))
    release = json.loads(yaml.safe_load((out / "configmap-release.yaml").read_text())["data"]["release.json"])
    assert set(release["configs"]) == {"sleeper"}
    assert release["store"] == "s3://bucket/prefix"
