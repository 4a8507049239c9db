"""The pure parts of the scripts that run in the pod. They are loaded as files, as the pod does it."""

import calendar
import importlib.util
import json
import struct
from pathlib import Path

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl import share
from deployctl.core.manifests import workload
from deployctl.testing import kube

FOLDER = Path(share.__file__).resolve().parent / "templates" / "kube"


def loaded(name):
    spec = importlib.util.spec_from_file_location(f"pod_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fetch, probe, serve = loaded("fetch"), loaded("probe"), loaded("serve")


@pytest.mark.parametrize("script", workload.SCRIPTS)
def test_scripts_import_nothing_but_the_standard_library(script):
    import ast
    import sys

    tree = ast.parse((FOLDER / script).read_text(), feature_version=(3, 10))  # the oldest Python in the Triton images
    found = {n.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    found |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert found <= set(sys.stdlib_module_names)


@given(
    key=st.from_regex(r"blobs/sha256/[0-9a-f]{2}/[0-9a-f]{62}", fullmatch=True),
    prefix=st.text(st.characters(codec="ascii", categories=("Ll", "Nd"), include_characters="/-_ +~"), max_size=12),
    token=st.none() | st.just("session/token=="),
    at_s=st.integers(1_500_000_000, 2_000_000_000),
)
def test_signatures_are_those_of_the_cloud_vendors_own_library(key, prefix, token, at_s):
    import time
    import urllib.parse

    url = f"https://bucket.s3.eu-west-1.amazonaws.com/{urllib.parse.quote(prefix + key)}"
    keys = ("AKIDEXAMPLE", "secret/key+x", token)
    ours = fetch.sign(url, "eu-west-1", keys, time.gmtime(at_s))
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_s))
    signer = botocore.auth.S3SigV4Auth(botocore.credentials.Credentials(*keys), "s3", "eu-west-1")
    request = botocore.awsrequest.AWSRequest("GET", url, headers={"X-Amz-Date": stamp})
    request.context["timestamp"] = stamp
    request.headers["x-amz-content-sha256"] = ours["x-amz-content-sha256"]
    if token:
        request.headers["x-amz-security-token"] = token
    theirs = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert ours["Authorization"].rpartition("=")[2] == theirs
    assert calendar.timegm(time.strptime(ours["x-amz-date"], "%Y%m%dT%H%M%SZ")) == at_s


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\\b", "a\0b", ".."])
def test_paths_that_leave_the_repository_are_refused(path):
    with pytest.raises(fetch.Failure) as caught:
        fetch.safe(path)
    assert caught.value.code == fetch.WRONG


def test_a_bucket_with_a_dot_is_addressed_by_path_and_an_endpoint_always():
    assert fetch.S3Store("s3://plain/p", "eu-west-1", None).root == "https://plain.s3.eu-west-1.amazonaws.com"
    assert fetch.S3Store("s3://a.b/p", "eu-west-1", None).root == "https://s3.eu-west-1.amazonaws.com/a.b"
    assert fetch.S3Store("s3://plain/p/q/", "r", "http://store:9000/").root == "http://store:9000/plain"
    assert fetch.S3Store("s3://plain/p/q/", "r", None).prefix == "p/q/"
    assert fetch.S3Store("s3://plain", "r", None).prefix == ""


# 1 = the canary was answered; then: turned away or timed out, completions before and after.
@pytest.mark.parametrize(
    ("answered", "overload", "before", "after", "sound"),
    [
        (True, False, None, None, True),
        (True, False, 5.0, 5.0, True),
        (False, True, 5.0, 6.0, True),  # busy and at work: overload never ejects
        (False, True, 5.0, 5.0, False),  # timed out and nothing was completed: it hangs
        (False, True, None, 6.0, False),
        (False, True, 5.0, None, False),
        (False, False, 5.0, 9.0, False),  # an error of its own: a dead backend, whatever was completed before
    ],
)
def test_who_is_sound(answered, overload, before, after, sound):
    assert probe.judge(answered=answered, overload=overload, before=before, after=after) is sound


def test_the_canary_has_as_many_bytes_as_its_tensors_say():
    widths = {"BOOL": 1, "UINT8": 1, "INT16": 2, "FP16": 2, "BF16": 2, "INT32": 4, "FP32": 4, "INT64": 8, "FP64": 8}
    inputs = [{"name": n, "datatype": n, "shape": [1, 3]} for n in widths] + [{"name": "T", "datatype": "BYTES", "shape": [2, 2]}]
    data, head = probe.body({"inputs": inputs})
    parsed = json.loads(data[:head])
    assert [t["parameters"]["binary_data_size"] for t in parsed["inputs"]] == [3 * w for w in widths.values()] + [16]
    assert len(data) == head + sum(3 * w for w in widths.values()) + 16
    assert struct.unpack("<IIII", data[-16:]) == (0, 0, 0, 0)  # four empty strings


def test_the_canary_of_a_bundle_names_its_entry_and_batch():
    packed = kube.bundle()
    made = kube.plan(packed)
    assert workload.canary(packed, made, made.cluster)["inputs"] == [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4]}]
    flat = kube.bundle(max_batch=0)
    assert workload.canary(flat, made, made.cluster)["inputs"][0]["shape"] == [4]


def test_every_admin_interface_is_closed_on_both_protocols_with_a_key_of_its_own():
    words = serve.arguments(["--http-port=1"], "k1")
    assert words[:2] == ["tritonserver", "--http-port=1"]
    for flag in ("--http-restricted-api", "--grpc-restricted-protocol"):
        value = next(w for w in words if w.startswith(flag)).partition("=")[2]
        names, _, key = value.partition(":")
        assert set(names.split(",")) == {"model-repository", "model-config", "shared-memory", "statistics", "trace", "logging"}
        assert key == "x-deployctl-admin=k1"
