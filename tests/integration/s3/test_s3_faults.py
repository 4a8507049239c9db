"""The shared store while S3 fails: what is transient is ridden out, what is not has its own error, and nothing is ever half visible."""

import collections
import hashlib

import pytest

from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.remote import Remote
from deployctl.core import codec, store
from deployctl.core.artifact import FileRef
from deployctl.core.bundle import Bundle
from deployctl.core.release import next_release
from deployctl.errors import CloudError, DeployctlError
from deployctl.flows import _publish
from deployctl.testing.contracts import a_plan
from deployctl.testing.memory import MemoryToolbox, NotedProgress

MIB = 1024**2
PART = 5 * MIB
FILES = {"m/1/model.py": b"import json\n" * 40, "m/1/weights.bin": bytes(range(256)) * 300, "m/1/vocab.txt": b"one\ntwo\n", "m/1/empty": b""}


def big(parts=3):
    """A file of `parts` parts and a little, no two parts alike."""
    return b"".join(hashlib.sha256(str(n).encode()).digest() * (MIB // 32) for n in range(5 * parts)) + b"the end"


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def machine(folder, bucket, endpoint=None, **options):
    tools = MemoryToolbox(folder)
    tools.blobs = FileBlobStore(folder / "blobs")
    tools.bundles = FileBundleStore(tools.blobs, folder / "bundles")
    objects = bucket.objects(endpoint, **{"attempts": 3, "part_bytes": PART, **options})
    tools.remote = Remote(objects, tools.blobs, folder / "fetch", owner="ada@host (pid 1)", poll_s=0.05, patience_s=2.0)
    return tools


def packed(tools, files=FILES):
    refs = tuple(FileRef(path=p, digest=tools.blobs.put_bytes(d), size_bytes=len(d)) for p, d in sorted(files.items()))
    bundle = Bundle(name="m", entry="m", variant="v", models=(), files=refs, sample=tools.blobs.put_bytes(b"{}\n"))
    tools.bundles.save(bundle)
    return bundle


def publish(tools, bundle):
    return _publish.publish(tools, bundle, NotedProgress(), env="prod")


def fetch(tools, bundle):
    return _publish.fetch(tools, bundle.digest, NotedProgress(), env="prod")


def whole(bucket, bundle):
    """Everything that the bundle names lies there, as seen past our own code."""
    return all(digest(bucket.read(store.blob_key(d))) == d for d in {f.digest for f in bundle.files} | {bundle.sample})


def sound(bucket, bundle):
    """A manifest is visible only when all of its blobs are."""
    assert store.bundle_key(bundle.digest) not in bucket.keys("bundles/") or whole(bucket, bundle)
    for key in bucket.keys("blobs/"):
        assert digest(bucket.read(key)) == store.digest_at(key), key


def first(times, fault, *, only=""):
    """Each (method, path) fails in this way for its first `times` requests."""
    seen = collections.Counter()

    def choose(method, path, _headers):
        seen[method, path] += 1
        return fault if only in f"{method} {path}" and seen[method, path] <= times else None

    return choose


@pytest.mark.parametrize("fault", ["busy", "reset", "slow", "truncated", "changed", "lost_answer"])
def test_transient_faults_are_ridden_out(bucket, proxy, tmp_path, fault):
    """Each request of a push, a commit and a fetch fails once."""
    tools = machine(tmp_path / "ci", bucket, proxy.endpoint)
    bundle = packed(tools)
    proxy.fault = first(1, fault)
    publish(tools, bundle)
    assert whole(bucket, bundle)
    records = tools.remote.records("svc", "prod")
    release = next_release(records.history(), a_plan(bundle=bundle.digest), action="up", now_s=1.0)
    with records.exclusive():
        records.append(release, expected_parent=None)
    assert records.history().releases == (release,)
    proxy.fault = first(1, fault)
    elsewhere = machine(tmp_path / "other", bucket, proxy.endpoint)
    assert fetch(elsewhere, bundle) == bundle
    assert {f.path: elsewhere.blobs.path(f.digest).read_bytes() for f in bundle.files} == FILES


LASTING = [
    ("busy", "PUT", "store-throttled", 4),
    ("reset", "PUT", "store-unreachable", 4),
    ("changed", "PUT", "store-damaged", 4),
    ("denied", "PUT", "store-denied", 3),
    ("expired", "PUT", "store-expired", 3),
    ("expired", "", "store-expired", 3),  # the first request is a HEAD, whose answer has no body
    ("denied", "", "store-denied", 3),
]


@pytest.mark.parametrize(("fault", "method", "code", "exit_code"), LASTING, ids=lambda v: str(v))
def test_lasting_faults_while_sending(bucket, proxy, tmp_path, fault, method, code, exit_code):
    tools = machine(tmp_path, bucket, proxy.endpoint, attempts=2)
    bundle = packed(tools)
    proxy.fault = lambda m, path, headers: fault if method in (m, "") else None
    with pytest.raises(CloudError) as refusal:
        publish(tools, bundle)
    assert (refusal.value.code, refusal.value.exit_code) == (code, exit_code) and refusal.value.hint
    assert bucket.keys("bundles/") == []
    sound(bucket, bundle)
    proxy.fault = lambda *_: None
    publish(tools, bundle)  # the same command goes on
    assert whole(bucket, bundle) and bucket.keys("bundles/")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("busy", "store-throttled"),
        ("reset", "store-unreachable"),
        ("truncated", "store-unreachable"),
        ("changed", "store-damaged"),
        ("denied", "store-denied"),
    ],
)
def test_lasting_faults_while_fetching_leave_nothing_half(bucket, proxy, tmp_path, fault, code):
    ci = machine(tmp_path / "ci", bucket)
    bundle = packed(ci)
    publish(ci, bundle)
    tools = machine(tmp_path / "other", bucket, proxy.endpoint, attempts=2)
    proxy.fault = lambda method, path, headers: fault if method == "GET" and "/blobs/" in path else None
    with pytest.raises(CloudError) as refusal:
        fetch(tools, bundle)
    assert refusal.value.code == code
    assert list((tmp_path / "other/fetch").iterdir()) == [] and list(tools.bundles.stored()) == []
    for content in tools.blobs.stored():
        tools.blobs.path(content.digest)
    proxy.fault = lambda *_: None
    assert fetch(tools, bundle) == bundle


def test_publishing_and_releasing_need_no_right_to_delete(bucket, proxy, tmp_path):
    tools = machine(tmp_path, bucket, proxy.endpoint)
    proxy.fault = lambda method, path, headers: "denied" if method == "DELETE" or "?delete" in path else None
    bundle = packed(tools, {**FILES, "m/1/weights.bin": big(1)})
    publish(tools, bundle)
    assert whole(bucket, bundle)


def test_an_identity_that_expires_in_the_middle(bucket, proxy, tmp_path):
    """The error says so; the same command sends only what was not sent."""
    tools = machine(tmp_path, bucket, proxy.endpoint)
    bundle = packed(tools)
    puts = []

    def expires(method, path, _headers):
        if method == "PUT":
            puts.append(path)
        return "expired" if method == "PUT" and len(puts) > 2 else None

    proxy.fault = expires
    with pytest.raises(CloudError) as refusal:
        publish(tools, bundle)
    assert refusal.value.code == "store-expired" and "log in again" in refusal.value.hint
    sent = len(bucket.keys("blobs/"))
    assert sent == 2
    proxy.fault = lambda *_: None
    proxy.asked.clear()
    assert publish(tools, bundle).sent == len(FILES) + 1 - sent
    assert sum(m == "PUT" and "/blobs/" in p for m, p in proxy.asked) == len(FILES) + 1 - sent


def test_no_bucket_no_identity_no_server(bucket, account, tmp_path, monkeypatch):
    bundle = packed(machine(tmp_path, bucket))
    bucket.name = "there-is-no-such-bucket"
    with pytest.raises(CloudError) as refusal:
        publish(machine(tmp_path, bucket), bundle)
    assert refusal.value.code == "store-missing-bucket"
    with pytest.raises(CloudError) as refusal:
        publish(machine(tmp_path, bucket, "http://127.0.0.1:1", attempts=1), bundle)
    assert refusal.value.code == "store-unreachable"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(CloudError) as refusal:
        publish(machine(tmp_path, bucket), bundle)
    assert (refusal.value.code, refusal.value.exit_code) == ("store-no-credentials", 3)


def test_a_big_file_goes_on_where_it_was(bucket, proxy, tmp_path):
    data = big(4)
    objects = bucket.objects(proxy.endpoint, part_bytes=PART, attempts=1)
    path = tmp_path / "weights"
    path.write_bytes(data)
    key, parts = store.blob_key(digest(data)), []

    def breaks(method, path, _headers):
        if "partNumber" in path:
            parts.append(path)
        return "denied" if "partNumber" in path and len(parts) > 3 else None

    proxy.fault = breaks
    with pytest.raises(CloudError):
        objects.upload(key, path, digest=digest(data))
    assert bucket.keys() == [] and len(bucket.unfinished()) == 1
    proxy.fault, moved = (lambda *_: None), []
    proxy.asked.clear()
    objects.upload(key, path, digest=digest(data), moved=moved.append)
    assert bucket.read(key) == data and bucket.unfinished() == [] and sum(moved) == len(data)
    assert sum("partNumber" in p for _, p in proxy.asked) == 2  # of five


@pytest.mark.parametrize("fault", ["changed", "busy", "lost_answer", "reset"])
def test_each_request_of_a_big_upload_fails_once(bucket, proxy, tmp_path, fault):
    data = big(2)
    (tmp_path / "weights").write_bytes(data)
    proxy.fault = first(1, fault, only="PUT" if fault == "changed" else "")
    key = store.blob_key(digest(data))
    bucket.objects(proxy.endpoint, part_bytes=PART, attempts=3).upload(key, tmp_path / "weights", digest=digest(data))
    assert bucket.read(key) == data


def test_a_part_of_another_content_is_not_taken_up(bucket, tmp_path):
    """An unfinished upload of the key exists, with a part that is not of this file."""
    data = big(2)
    (tmp_path / "weights").write_bytes(data)
    key = store.blob_key(digest(data))
    named = {"Bucket": bucket.name, "Key": f"team/x/{key}"}
    upload = bucket.client.create_multipart_upload(**named)["UploadId"]
    bucket.client.upload_part(**named, UploadId=upload, PartNumber=1, Body=b"x" * PART)
    bucket.objects(part_bytes=PART).upload(key, tmp_path / "weights", digest=digest(data))
    assert bucket.read(key) == data


def test_a_big_file_that_is_not_what_its_name_says_never_appears(bucket, tmp_path):
    data = big(2)
    (tmp_path / "weights").write_bytes(data[:-1] + b"X")
    with pytest.raises(DeployctlError) as refusal:
        bucket.objects(part_bytes=PART).upload(store.blob_key(digest(data)), tmp_path / "weights", digest=digest(data))
    assert refusal.value.code == "blob-damaged" and bucket.keys() == [] and bucket.unfinished() == []


def test_abandoned_uploads_are_ended(bucket):
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="team/x/blobs/sha256/ab/cd")
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="elsewhere/blobs/sha256/ab/cd")
    # moto says of each that it was begun in 2010, so that a young one cannot be shown here.
    assert bucket.objects().drop_unfinished(3600) == 1 and [u["Key"] for u in bucket.unfinished()] == ["elsewhere/blobs/sha256/ab/cd"]


def test_a_changed_lease_or_pointer_is_not_believed(bucket, proxy, tmp_path):
    """Neither is named by its content, so their sum travels with them."""
    tools = machine(tmp_path, bucket, proxy.endpoint, attempts=1)
    records = tools.remote.records("svc", "prod")
    records.hold("sha256:" + "ab" * 32)
    proxy.fault = lambda method, path, headers: "changed" if method == "GET" and path.endswith(".json") else None
    with pytest.raises(CloudError) as refusal:
        records.history()
    assert refusal.value.code == "store-damaged"


def test_no_secret_in_what_is_said(bucket, proxy, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "TOPSECRET/value")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "SESSIONTOKEN")
    tools = machine(tmp_path, bucket, proxy.endpoint, attempts=1)
    bundle = packed(tools)
    for fault in ("denied", "expired", "busy", "reset"):
        proxy.fault = lambda method, path, headers, fault=fault: fault if method == "PUT" else None
        with pytest.raises(CloudError) as refusal:
            publish(tools, bundle)
        said = " ".join(str(v) for v in (refusal.value.message, refusal.value.why, refusal.value.hint, refusal.value.where))
        assert "TOPSECRET" not in said and "SESSIONTOKEN" not in said and "AKIDTEST" not in said
    assert "TOPSECRET" not in codec.dumps(bundle)
