"""Releases as commits over a shared store: what a commit names lies there before the commit says so, and stays there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "gitops"))
from gitops_kit import YAML, Work, project

from deployctl.core import store
from deployctl.core.bundle import Bundle
from deployctl.core.collect import content_of
from deployctl.wiring import LazyToolbox

SERVICE = "echo"


@pytest.fixture
def work(bucket, proxy, tmp_path, monkeypatch):
    """A project whose `prod` commits release from the bucket, seen through the proxy."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "ada@example.test")
    text = YAML.replace('store: "https://blobs.example.test/echo"', f'store: "{bucket.address}", store_endpoint: "{proxy.endpoint}"')
    assert bucket.address in text
    return project(tmp_path / "project", text)


def bundle_of(work, digest) -> Bundle:
    return LazyToolbox(work.root, "prod").bundles.load(digest)


def is_whole(bucket, bundle):
    keys = bucket.keys()
    return store.bundle_key(bundle.digest) in keys and all(store.blob_key(d) in keys for d in content_of(bundle))


def lose(bucket, *keys):
    for key in keys:
        bucket.client.delete_object(Bucket=bucket.name, Key=f"team/x/{key}")


def two_releases(work):
    first = bundle_of(work, work.in_dev(0.01))
    work.promote()
    second = bundle_of(work, work.in_dev(0.02))
    work.promote()
    return first, second


def clone_of(work, folder):
    """A checkout on a machine that has no content."""
    subprocess.run(["git", "clone", "-q", str(work.root), str(folder)], check=True)
    return Work(folder)


def test_promote_and_scale_publish_and_pin(work, bucket):
    first, second = two_releases(work)
    assert is_whole(bucket, first) and is_whole(bucket, second)
    pins = {store.pin_key(SERVICE, "prod", b.digest) for b in (first, second)}
    assert pins <= set(bucket.keys())
    lose(bucket, store.pin_key(SERVICE, "prod", second.digest), *(store.blob_key(d) for d in content_of(second)))
    assert work.run("scale", "3", "--env", "prod", "--yes").exit_code == 0
    assert is_whole(bucket, second) and pins <= set(bucket.keys())


def test_rollback_sends_again_what_the_store_lost(work, bucket):
    first, _ = two_releases(work)
    lose(bucket, *(store.blob_key(d) for d in content_of(first)), store.pin_key(SERVICE, "prod", first.digest))
    result = work.run("rollback", "--env", "prod", "--yes")
    assert result.exit_code == 0, result.exception
    assert work.lock("prod").bundle == first.digest
    assert is_whole(bucket, first)
    assert json.loads(bucket.read(store.pin_key(SERVICE, "prod", first.digest)))["bundle"] == first.digest


def test_rollback_needs_no_content_here_while_the_store_has_it(work, bucket, tmp_path):
    first, _ = two_releases(work)
    clone = clone_of(work, tmp_path / "clone")
    result = clone.run("rollback", "--env", "prod", "--yes")
    assert result.exit_code == 0, result.exception
    assert clone.lock("prod").bundle == first.digest and is_whole(bucket, first)


def test_rollback_to_content_that_is_nowhere_is_refused_before_anything_is_written(work, bucket, tmp_path):
    first, _ = two_releases(work)
    lose(bucket, store.blob_key(first.files[0].digest))
    clone = clone_of(work, tmp_path / "clone")
    head = clone.head()
    error = clone.error("rollback", "--env", "prod", "--yes")
    assert (error.code, error.exit_code) == ("blob-not-found", 6)
    assert clone.head() == head and clone.git("status", "--short") == ""


@pytest.mark.parametrize("fault", ["denied", "reset"])
def test_a_store_that_cannot_be_asked_stops_no_rollback_and_stops_a_release(work, proxy, fault):
    first, _ = two_releases(work)
    work.in_dev(0.03)
    proxy.fault = lambda *_: fault
    head = work.head()
    assert work.error("promote", "dev", "prod", "--yes", "--unverified").code in ("store-denied", "store-unreachable")
    assert work.head() == head and work.git("status", "--short") == ""
    result = work.run("rollback", "--env", "prod", "--yes")
    assert result.exit_code == 0, result.exception
    assert "nobody looked whether the store still has" in " ".join(result.stderr.split())
    assert work.lock("prod").bundle == first.digest
