"""Contract tests of BlobStore: inherit and give the class a `make`. Refuses to know any adapter."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from deployctl.core.artifact import FileRef
from deployctl.errors import ModelError, NotFound, ProjectError
from deployctl.ports import BlobStore


class BlobStoreContract(ABC):
    """What flows rely on: content by its digest, whole or not at all, and trees that are verified private copies."""

    @abstractmethod
    def make(self, folder: Path) -> BlobStore:
        """A store that keeps its things under `folder`; several calls with one folder are several views of one store."""

    def ref(self, store: BlobStore, path: str, data: bytes, *, executable: bool = False) -> FileRef:
        """Store `data` and refer to it."""
        return FileRef(path=path, digest=store.put_bytes(data), size_bytes=len(data), executable=executable)

    def test_bytes_come_back_by_the_digest_of_their_content(self, tmp_path: Path) -> None:
        """sha256 of nothing is a known constant."""
        store = self.make(tmp_path)
        digest = store.put_bytes(b"")
        assert digest == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        assert store.path(digest).read_bytes() == b""

    def test_a_file_and_its_bytes_are_one_blob(self, tmp_path: Path) -> None:
        """Both ways in name the same content."""
        store = self.make(tmp_path / "store")
        file = tmp_path / "file"
        file.write_bytes(b"weights" * 1000)
        assert store.put_file(file) == store.put_bytes(b"weights" * 1000)

    def test_an_unknown_digest_is_not_found(self, tmp_path: Path) -> None:
        """And asking whether it is there is no error."""
        store = self.make(tmp_path)
        missing = "sha256:" + "0" * 64
        assert not store.has(missing)
        with pytest.raises(NotFound) as found:
            store.path(missing)
        assert found.value.code == "blob-not-found"

    def test_editing_the_source_in_place_does_not_reach_the_blob(self, tmp_path: Path) -> None:
        """A file is copied, never linked."""
        store = self.make(tmp_path / "store")
        file = tmp_path / "file"
        file.write_bytes(b"first")
        digest = store.put_file(file)
        with file.open("r+b") as handle:
            handle.write(b"XXXXX")
        assert store.path(digest).read_bytes() == b"first"

    def test_a_tree_has_content_folders_and_rights(self, tmp_path: Path) -> None:
        """Paths, bytes and the executable bit."""
        store = self.make(tmp_path / "store")
        refs = [self.ref(store, "m/1/a", b"aa"), self.ref(store, "m/run.sh", b"#!", executable=True), self.ref(store, "b", b"")]
        store.materialise(refs, tmp_path / "tree")
        found = {p.relative_to(tmp_path / "tree").as_posix(): p.read_bytes() for p in (tmp_path / "tree").rglob("*") if p.is_file()}
        assert found == {"m/1/a": b"aa", "m/run.sh": b"#!", "b": b""}
        assert (tmp_path / "tree/m/run.sh").stat().st_mode & 0o100
        assert not (tmp_path / "tree/b").stat().st_mode & 0o111

    def test_damage_to_a_tree_does_not_reach_the_blob(self, tmp_path: Path) -> None:
        """A replica's copy shares no inode with the store."""
        store = self.make(tmp_path / "store")
        ref = self.ref(store, "a", b"good")
        store.materialise([ref], tmp_path / "tree")
        (tmp_path / "tree/a").chmod(0o600)
        with (tmp_path / "tree/a").open("r+b") as handle:
            handle.write(b"evil")
        assert store.path(ref.digest).read_bytes() == b"good"

    @pytest.mark.parametrize("path", ["../out", "/etc/out", "a/../../out", "", ".", "a//b", "a\\b", "./a"])
    def test_a_path_that_leaves_the_tree_is_refused(self, tmp_path: Path, path: str) -> None:
        """And nothing is written, not even the good files."""
        store = self.make(tmp_path / "store")
        refs = [self.ref(store, "good", b"1"), self.ref(store, path, b"2")]
        with pytest.raises(ModelError) as found:
            store.materialise(refs, tmp_path / "deep/tree")
        assert found.value.code == "path-escapes"
        assert not (tmp_path / "deep/tree").exists()

    def test_a_missing_blob_leaves_no_tree(self, tmp_path: Path) -> None:
        """Nothing half-written."""
        store = self.make(tmp_path / "store")
        refs = [self.ref(store, "good", b"1"), FileRef(path="gone", digest="sha256:" + "1" * 64, size_bytes=1)]
        with pytest.raises(NotFound):
            store.materialise(refs, tmp_path / "deep/tree")
        assert not (tmp_path / "deep/tree").exists()

    def test_a_folder_with_something_in_it_is_not_written_to(self, tmp_path: Path) -> None:
        """Old and new never mix."""
        store = self.make(tmp_path / "store")
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree/mine").write_text("keep")
        with pytest.raises(ProjectError) as found:
            store.materialise([self.ref(store, "a", b"1")], tmp_path / "tree")
        assert found.value.code == "folder-not-empty"
        assert [p.name for p in (tmp_path / "tree").iterdir()] == ["mine"]

    def test_many_writers_of_one_content_agree(self, tmp_path: Path) -> None:
        """Eight at once, each with its own view of the store."""
        data = b"the same weights" * 4096
        digests: list[str] = []
        threads = [threading.Thread(target=lambda: digests.append(self.make(tmp_path).put_bytes(data))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(digests) == 8 and len(set(digests)) == 1
        assert self.make(tmp_path).path(digests[0]).read_bytes() == data
