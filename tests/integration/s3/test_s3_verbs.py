"""The verbs over a shared store, through the real command line and a real Triton: pushed here, run by digest elsewhere, recovered, collected."""

import contextlib
import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from deployctl import share
from deployctl.cli import main
from deployctl.core import store

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240)]

DEPLOY = """\
version: 1
name: sleeper
model: {{source: "triton:repo", sample: samples.jsonl}}
slo: {{latency: {{p99: 500ms}}, errors: 1%}}
traffic: {{rate: 5/s}}
environments:
  local: {{}}
  prod: {{ports: {{http: 0, grpc: 0}}, store: "{address}", store_endpoint: "{endpoint}"}}
"""
CONFIG = """\
name: "sleeper"
backend: "python"
max_batch_size: 8
input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [4] }]
output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [4] }]
instance_group [{ kind: KIND_CPU count: 1 }]
dynamic_batching { }
parameters { key: "t0_s" value { string_value: "0.005" } }
"""


class Machine:
    """A checkout on a machine of its own."""

    def __init__(self, root, bucket, model=True):
        self.root = root
        (root / "repo").mkdir(parents=True)
        (root / "deploy.yaml").write_text(DEPLOY.format(address=bucket.address, endpoint=bucket.endpoint))
        (root / "samples.jsonl").write_text("".join(f'{{"INPUT0": [{n}, 2, 3, 4]}}\n' for n in range(1, 5)))
        if model:
            (root / "repo/sleeper/1").mkdir(parents=True)
            shutil.copy(share.folder("model_repo") / "sleep/1/model.py", root / "repo/sleeper/1")
            (root / "repo/sleeper/config.pbtxt").write_text(CONFIG)

    def run(self, *words, ok=0):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main.run(["-C", str(self.root), *words])
        assert code == ok, f"{words}: {code}\n{out.getvalue()}\n{err.getvalue()}"
        return out.getvalue(), err.getvalue()


def age(folder, seconds):
    old = time.time() - seconds
    for path in Path(folder).rglob("*"):
        if path.is_file():
            os.utime(path, (old, old))


def test_from_ci_to_another_machine_and_back(bucket, tmp_path):
    ci = Machine(tmp_path / "ci", bucket)
    out, err = ci.run("package", "--push", "--lock", "prod", "--format", "json")
    digest = json.loads(out)["digest"]
    assert f"{digest} is in {bucket.address}" in err
    assert json.loads((ci.root / "lock/prod.lock").read_text())["bundle"] == digest
    assert store.bundle_key(digest) in bucket.keys("") and store.lock_key("sleeper", "prod") in bucket.keys("")
    out, err = ci.run("package", "--push", "--lock", "prod")
    assert "everything was there" in err

    there = Machine(tmp_path / "there", bucket, model=False)  # a checkout that could not build it
    shutil.copytree(ci.root / "lock", there.root / "lock")
    there.run("up", "--env", "prod", "--release", "sha256:" + "0" * 64, "--yes", ok=6)
    try:
        out, err = there.run("up", "--env", "prod", "--release", digest, "--yes")
        assert out.startswith("http://127.0.0.1:") and "fetching" in err
        out, _ = there.run("call", "--env", "prod")
        assert "OUTPUT0" in out
        assert store.release_key("sleeper", "prod", 1) in bucket.keys("")
        before = bucket.keys()
        _, err = there.run("up", "--env", "prod", "--release", digest, "--yes")
        assert "already serves exactly this" in err and bucket.keys() == before
    finally:
        there.run("down", "--env", "prod", "--yes")

    # The machine is lost: another one has the records again, and runs what was released last.
    new = Machine(tmp_path / "new", bucket, model=False)
    out, err = new.run("recover", "--env", "prod")
    assert "brought back from the store" in out and f"--release {digest}" in err and "lock/prod.lock was missing" in err
    assert json.loads(new.run("history", "--env", "prod", "-o", "json")[0])["items"][0]["revision"] == 1
    try:
        out, _ = new.run("up", "--env", "prod", "--release", digest, "--yes")
        assert out.startswith("http://127.0.0.1:")
    finally:
        new.run("down", "--env", "prod", "--yes")

    # Collecting keeps what was released, here and there, at any age.
    age(new.root / ".deployctl/blobs", 2 * 86400)
    stray = new.root / ".deployctl/blobs/sha256/ab" / ("c" * 62)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"of nothing")
    age(stray.parent, 2 * 86400)
    out, _ = new.run("gc", "--env", "prod", "--dry-run")
    assert "WOULD GO" in out and stray.exists()
    new.run("gc", "--env", "prod", "--grace", "5min", ok=5)
    out, _ = new.run("gc", "--env", "prod", "--yes", "-o", "json")
    here, shared, cached = json.loads(out)["items"]
    # Beside the stray one: a config.pbtxt that was written for a replica, which each start writes anew.
    assert (here["removed"], shared["removed"], shared["place"]) == (2, 0, bucket.address) and not stray.exists()
    assert here["kept"] == shared["kept"] + shared["young"] > 0
    assert (cached["place"], cached["removed"]) == (".deployctl/cache", 0)


def test_what_is_said_without_a_store_and_without_rights(bucket, proxy, tmp_path):
    ci = Machine(tmp_path / "ci", bucket)
    _, err = ci.run("package", "--push", ok=2)
    assert "error: the environment local names no store" in err and "add `store: s3://bucket/prefix`" in err
    text = (ci.root / "deploy.yaml").read_text()
    (ci.root / "deploy.yaml").write_text(text.replace(bucket.endpoint, proxy.endpoint))
    proxy.fault = lambda *_: "denied"
    _, err = ci.run("package", "--push", "--lock", "prod", ok=3)
    assert "the store refuses you" in err and "docs/guides/store.md" in err and "Traceback" not in err
    assert not (ci.root / "lock/prod.lock").exists()
    (ci.root / "deploy.yaml").write_text(text.replace("s3://", "gs://"))
    _, err = ci.run("package", "--push", "--lock", "prod", ok=2)
    assert "cannot write to gs://" in err
