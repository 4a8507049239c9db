"""Publishing and fetching a bundle, over memory ports: what travels, in which order, and what a collection in between does."""

import pytest

from deployctl.adapters.files import FileBlobStore
from deployctl.adapters.remote import Remote
from deployctl.core import store
from deployctl.errors import CloudError, NotFound, ProjectError
from deployctl.flows import _publish
from deployctl.testing.builders import sleep_bundle
from deployctl.testing.memory import MemoryObjects, MemoryToolbox, NotedProgress


class Watched(MemoryObjects):
    """Remembers every write."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def put(self, key, data, *, expected):
        self.writes.append(key)
        return super().put(key, data, expected=expected)

    def upload(self, key, path, *, digest, moved=lambda _: None):
        self.writes.append(key)
        super().upload(key, path, digest=digest, moved=moved)


def machine(folder, objects):
    tools = MemoryToolbox(folder)
    tools.remote = Remote(objects, tools.blobs, folder / "fetch", owner="ada@host (pid 1)", poll_s=0.01)
    return tools


@pytest.fixture
def objects():
    return Watched()


@pytest.fixture
def tools(tmp_path, objects):
    return machine(tmp_path / "ci", objects)


def push(tools, **options):
    bundle = sleep_bundle(tools.blobs, tools.bundles)
    return bundle, _publish.publish(tools, bundle, NotedProgress(), env="prod", **options)


def test_blobs_come_first_and_the_manifest_last(tools, objects):
    bundle, published = push(tools)
    named = {f.digest for f in bundle.files} | {bundle.sample}
    kinds = [key.partition("/")[0] for key in objects.writes]
    assert kinds == ["blobs"] * len(named) + ["leases", "bundles", "leases", "leases"]
    assert published.sent == len(named) and published.sent_bytes == sum(len(tools.blobs.data[d]) for d in named)
    assert all(objects.head(store.blob_key(d)) for d in named)


def test_publishing_again_writes_nothing(tools, objects):
    push(tools)
    objects.writes.clear()
    _, published = push(tools)
    assert (objects.writes, published.sent) == ([], 0)


def test_an_old_manifest_is_written_anew_so_that_collecting_counts_from_now(tools, objects):
    bundle, _ = push(tools)
    objects.now_s += 7200
    push(tools)
    assert objects.head(store.bundle_key(bundle.digest)).age_s == 0


def test_only_what_is_missing_or_was_changed_travels(tools, objects):
    bundle, _ = push(tools)
    one, two = store.blob_key(bundle.files[0].digest), store.blob_key(bundle.sample)
    objects.delete([one])
    objects.put(two, b"cut off", expected=objects.get(two).tag)
    objects.writes.clear()
    _, published = push(tools)
    assert published.sent == 2 and {k for k in objects.writes if k.startswith("blobs")} == {one, two}


def test_what_a_collection_takes_in_between_is_sent_again(tools, objects):
    """The look under the lease is the one that counts."""
    bundle = sleep_bundle(tools.blobs, tools.bundles)
    victim = store.blob_key(bundle.files[0].digest)
    real, lease = tools.remote.lease, []

    def taken(name):
        lease.append(name)
        objects.delete([victim])
        return real(name)

    tools.remote.lease = taken
    published = _publish.publish(tools, bundle, NotedProgress(), env="prod")
    assert (
        lease == ["store"] and objects.head(victim) and objects.writes.count(victim) == 2 and published.sent == len(bundle.files) + 2
    )  # and the sample


def test_a_damaged_local_file_is_not_published(tools, objects, tmp_path):
    tools.blobs = FileBlobStore(tmp_path / "blobs")
    bundle = sleep_bundle(tools.blobs, tools.bundles)
    path = tools.blobs.path(bundle.files[0].digest)
    path.chmod(0o600)
    path.write_bytes(b"changed")
    with pytest.raises(Exception) as refusal:
        _publish.publish(tools, bundle, NotedProgress(), env="prod")
    assert refusal.value.code == "blob-damaged" and list(objects.list("bundles/")) == []


def test_another_machine_fetches_it_by_digest_and_verifies(tools, objects, tmp_path):
    bundle, _ = push(tools)
    other = machine(tmp_path / "elsewhere", objects)
    assert _publish.fetch(other, bundle.digest, NotedProgress(), env="prod") == bundle
    assert other.bundles.load(bundle.digest) == bundle
    assert all(other.blobs.path(f.digest).read_bytes() == tools.blobs.data[f.digest] for f in bundle.files)


def test_a_tampered_blob_or_manifest_is_never_fetched(tools, objects, tmp_path):
    bundle, _ = push(tools)
    for key in (store.blob_key(bundle.files[0].digest), store.bundle_key(bundle.digest)):
        good = objects.get(key)
        objects.put(key, good.data[:-1] + b"X", expected=good.tag)
        other = machine(tmp_path / key.replace("/", "-"), objects)
        with pytest.raises(CloudError) as refusal:
            _publish.fetch(other, bundle.digest, NotedProgress(), env="prod")
        assert refusal.value.code == "store-damaged"
        with pytest.raises(NotFound):
            other.bundles.load(bundle.digest)
        objects.put(key, good.data, expected=objects.get(key).tag)


def test_what_is_here_is_not_fetched(tools, objects):
    bundle, _ = push(tools)
    tools.remote = None
    assert _publish.fetch(tools, bundle.digest, NotedProgress(), env="prod") == bundle


def test_an_environment_without_a_store_says_so(tmp_path):
    tools = MemoryToolbox(tmp_path)
    bundle = sleep_bundle(tools.blobs, tools.bundles)
    with pytest.raises(ProjectError) as refusal:
        _publish.publish(tools, bundle, NotedProgress(), env="prod")
    assert refusal.value.code == "store-not-named"
    with pytest.raises(ProjectError):
        _publish.fetch(tools, "sha256:" + "0" * 64, NotedProgress(), env="prod")
