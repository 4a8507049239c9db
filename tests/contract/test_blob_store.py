"""The BlobStore contract on real files, and what only files can suffer: damage, full disks, kills."""

import os
import signal
import subprocess
import sys
import time

import pytest

from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.remote import Remote
from deployctl.core.artifact import FileRef
from deployctl.errors import MachineError, ModelError, NotFound
from deployctl.testing.blob_contract import BlobStoreContract
from deployctl.testing.builders import sleep_bundle
from deployctl.testing.memory import MemoryObjects


class TestFileBlobStore(BlobStoreContract):
    def make(self, folder):
        return FileBlobStore(folder)

    def test_a_flipped_bit_is_found_on_read_and_healed_by_a_put(self, tmp_path):
        store = self.make(tmp_path)
        digest = store.put_bytes(b"good")
        place = tmp_path / "sha256" / digest[7:9] / digest[9:]
        place.chmod(0o600)
        place.write_bytes(b"gooe")
        with pytest.raises(ModelError) as found:
            store.path(digest)
        assert (found.value.code, found.value.where) == ("blob-damaged", str(place))
        with pytest.raises(ModelError):
            store.materialise([FileRef(path="a", digest=digest, size_bytes=4)], tmp_path / "tree")
        assert not (tmp_path / "tree").exists()
        assert store.put_bytes(b"good") == digest
        assert store.path(digest).read_bytes() == b"good"

    def test_blobs_cannot_be_opened_for_writing_by_accident(self, tmp_path):
        store = self.make(tmp_path)
        assert store.path(store.put_bytes(b"x")).stat().st_mode & 0o222 == 0

    def test_what_a_killed_writer_left_is_swept(self, tmp_path):
        store = self.make(tmp_path)
        store.put_bytes(b"first")
        stale, fresh = tmp_path / "tmp/1-dead", tmp_path / "tmp/1-alive"
        stale.write_bytes(b"half")
        fresh.write_bytes(b"half")
        os.utime(stale, (time.time() - 7200,) * 2)
        store.put_bytes(b"second")
        assert not stale.exists() and fresh.exists()


class TestSharedBlobs(BlobStoreContract):
    """Over an ObjectStore; tests/integration/s3 has the same on S3."""

    objects = None

    @pytest.fixture(autouse=True)
    def _objects(self):
        self.objects = MemoryObjects()

    def make(self, folder):
        return Remote(self.objects, FileBlobStore(folder / "blobs"), folder / "fetch", owner="ada@host").blobs


FULL = """
import sys, resource
from pathlib import Path
from deployctl.adapters.files import FileBlobStore
from deployctl.core.artifact import FileRef
from deployctl.errors import MachineError
root = Path(sys.argv[1])
store = FileBlobStore(root / "store")
small, big = store.put_bytes(b"s" * 1000), store.put_bytes(b"b" * 50_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
tree = [FileRef(path="m/small", digest=small, size_bytes=1000), FileRef(path="m/x", digest=big, size_bytes=50_000)]
for act in (
    lambda: store.put_bytes(b"c" * 30_000),
    lambda: store.materialise(tree, root / "tree"),
):
    try:
        act()
    except MachineError as error:
        print(error.code)
"""


def test_a_full_disk_leaves_nothing(tmp_path):
    """The kernel refuses to let a file grow, as a full disk does."""
    said = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["disk-full", "disk-full"], said.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]
    assert list((tmp_path / "store/tmp").iterdir()) == []
    assert sum(p.is_file() for p in (tmp_path / "store/sha256").rglob("*")) == 2


KILLED = """
import sys, os
from pathlib import Path
from deployctl.adapters.files import FileBlobStore
store = FileBlobStore(Path(sys.argv[1]))
print("go", flush=True)
n = 0
while True:
    store.put_bytes(os.urandom(200_000))
"""


@pytest.mark.parametrize("delay_s", [0.01, 0.03, 0.07])
def test_a_killed_writer_leaves_only_whole_blobs(tmp_path, delay_s):
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    child.stdout.readline()
    time.sleep(delay_s)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = FileBlobStore(tmp_path)
    blobs = [p for p in (tmp_path / "sha256").rglob("*") if p.is_file()]
    for blob in blobs:
        store.path(f"sha256:{blob.parent.name}{blob.name}")


class TestFileBundleStore:
    def test_a_bundle_comes_back_as_it_was(self, tmp_path):
        blobs = FileBlobStore(tmp_path / "blobs")
        bundles = FileBundleStore(blobs, tmp_path / "bundles")
        bundle = sleep_bundle(blobs, bundles, 0.01, 0.001, 8, 2)
        assert bundles.load(bundle.digest) == bundle
        assert bundles.save(bundle) == bundle.digest

    def test_the_manifest_is_refused_while_a_blob_is_missing(self, tmp_path):
        blobs = FileBlobStore(tmp_path / "blobs")
        bundle = sleep_bundle(blobs, FileBundleStore(blobs, tmp_path / "bundles"))
        empty = FileBundleStore(FileBlobStore(tmp_path / "elsewhere"), tmp_path / "others")
        with pytest.raises(NotFound) as found:
            empty.save(bundle)
        assert found.value.code == "blob-not-found"
        with pytest.raises(NotFound) as found:
            empty.load(bundle.digest)
        assert found.value.code == "bundle-not-found"

    def test_a_changed_manifest_is_damaged(self, tmp_path):
        blobs = FileBlobStore(tmp_path / "blobs")
        bundles = FileBundleStore(blobs, tmp_path / "bundles")
        digest = sleep_bundle(blobs, bundles).digest
        path = tmp_path / "bundles" / f"{digest[7:]}.json"
        path.write_text(path.read_text().replace("sleeper", "snooper"))
        with pytest.raises(ModelError) as found:
            bundles.load(digest)
        assert found.value.code == "blob-damaged"

    def test_a_place_that_is_a_file_is_an_error_with_a_remedy(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(MachineError) as found:
            FileBlobStore(tmp_path / "file" / "blobs").put_bytes(b"x")
        assert found.value.code == "folder-not-writable"
