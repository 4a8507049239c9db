"""What a pod starts from after a real push: whatever was done to the objects meanwhile, nothing but the whole bundle is served.

tests/integration/kube/test_fetch.py has the fetcher against a plain store and its faults; here the objects are those that
`package --push` made, read with signed requests.
"""

import dataclasses
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_s3_faults import machine, publish

from deployctl import share
from deployctl.adapters.files import FileBundleStore
from deployctl.core import manifests, store
from deployctl.testing import kube

SCRIPT = Path(share.__file__).resolve().parent / "templates" / "kube" / "fetch.py"
FILES = {"model.py": b"import json\n" * 40, "weights.bin": bytes(range(256)) * 300, "data/vocab.txt": b"one\ntwo\n"}


def mounted(folder, bundle, bucket):
    """What the kubelet would mount: the data of the ConfigMap as files."""
    made = kube.plan(bundle, cluster={"store": bucket.address, "store_region": "eu-west-1", "store_endpoint": bucket.endpoint})
    data = next(o for o in manifests.objects(kube.inputs(bundle, made)) if o["kind"] == "ConfigMap")["data"]
    folder.mkdir(parents=True)
    for name, text in data.items():
        (folder / name).write_text(text)
    return folder


def fetch(source, into, account):
    env = {"PATH": os.environ["PATH"], **{k: v for k, v in account.identity.items() if k.startswith("AWS_")}}
    words = [sys.executable, "-I", SCRIPT, "--from", source, "--into", into, "--backoff", "0.01"]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env=env)


def pushed(folder, bucket):
    tools = machine(folder, bucket)
    sample = tools.blobs.put_bytes(b"{}\n")
    bundle = kube.bundle(FILES)
    for data in FILES.values():
        tools.blobs.put_bytes(data)
    bundle = dataclasses.replace(bundle, sample=sample)
    tools.bundles = FileBundleStore(tools.blobs, folder / "bundles")
    tools.bundles.save(bundle)
    publish(tools, bundle)
    return tools, bundle


def test_what_was_pushed_is_what_a_pod_starts_from(bucket, account, tmp_path):
    _, bundle = pushed(tmp_path / "ci", bucket)
    result = fetch(mounted(tmp_path / "in", bundle, bucket), tmp_path / "repository", account)
    assert result.returncode == 0, result.stderr
    assert {n: (tmp_path / "repository/echo/1" / n).read_bytes() for n in FILES} == FILES


def _flip(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


HARMS = {
    "flipped": _flip,
    "cut off": lambda data, rng: data[: rng.randrange(len(data))],
    "longer": lambda data, rng: data + rng.randbytes(rng.choice([1, 5000])),
    "same size": lambda data, rng: rng.randbytes(len(data)),
    "another's": lambda data, rng: next(other for other in FILES.values() if other != data),
    "missing": None,
}


def harm(seed, bucket, account, bundle, folder):
    rng = random.Random(seed)
    kind = list(HARMS)[seed % len(HARMS)]
    digest = rng.choice([f.digest for f in bundle.files])
    key = store.blob_key(digest)
    good = bucket.read(key)
    if HARMS[kind] is None:
        bucket.client.delete_object(Bucket=bucket.name, Key=f"team/x/{key}")
    else:
        bucket.write(key, HARMS[kind](good, rng))
    result = fetch(mounted(folder / "in", bundle, bucket), folder / "repository", account)
    assert result.returncode == (66 if kind == "missing" else 65), (seed, kind, result.stderr)
    assert not (folder / "repository").exists(), (seed, kind)
    bucket.write(key, good)
    shutil.rmtree(folder)


def test_nothing_starts_on_a_harmed_push_and_pushing_again_mends_it(bucket, account, tmp_path):
    tools, bundle = pushed(tmp_path / "ci", bucket)
    for seed in range(len(HARMS)):
        harm(seed, bucket, account, bundle, tmp_path / str(seed))
    for file in bundle.files:
        bucket.write(store.blob_key(file.digest), b"x" * file.size_bytes)
    assert publish(tools, bundle).sent == len(FILES)  # an object that somebody else wrote has not our sum
    assert fetch(mounted(tmp_path / "in", bundle, bucket), tmp_path / "repository", account).returncode == 0


@pytest.mark.full
@pytest.mark.timeout(900)
def test_nothing_starts_on_200_harmed_pushes(bucket, account, tmp_path):
    _, bundle = pushed(tmp_path / "ci", bucket)
    for seed in range(100, 300):
        harm(seed, bucket, account, bundle, tmp_path / str(seed))
