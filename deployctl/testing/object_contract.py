"""Contract tests of ObjectStore: inherit and give the class a `make`. Refuses to know any adapter."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from deployctl.errors import ModelError, NotFound
from deployctl.ports import ObjectStore


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class ObjectStoreContract(ABC):
    """What the shared store rests on: whole objects, compare-and-set, listings by prefix, ages by the store's clock."""

    @abstractmethod
    def make(self) -> ObjectStore:
        """A store that is empty."""

    def test_what_was_put_comes_back(self) -> None:
        """With a tag, and young."""
        store = self.make()
        assert store.get("a/b.json") is None and store.head("a/b.json") is None
        tag = store.put("a/b.json", b"one", expected=None)
        found = store.get("a/b.json")
        assert found is not None and (found.data, found.tag) == (b"one", tag) and found.age_s < 60
        head = store.head("a/b.json")
        assert head is not None and (head.key, head.size_bytes) == ("a/b.json", 3)

    def test_only_one_creates(self) -> None:
        """Eight at once, each with content of its own."""
        store = self.make()
        start, tags = threading.Barrier(8), []

        def race(number: int) -> None:
            start.wait()
            tags.append(store.put("new", str(number).encode(), expected=None))

        threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(tag is not None for tag in tags) == 1

    def test_a_stale_tag_changes_nothing(self) -> None:
        """Nor does a tag of an object that is gone."""
        store = self.make()
        first = store.put("x", b"1", expected=None)
        second = store.put("x", b"2", expected=first)
        assert second is not None and store.put("x", b"3", expected=first) is None
        found = store.get("x")
        assert found is not None and found.data == b"2"
        store.delete(["x"])
        assert store.put("x", b"3", expected=second) is None and store.get("x") is None

    def test_writing_the_same_again_counts_as_written(self) -> None:
        """A lost answer is followed by a second request: it finds its own content."""
        store = self.make()
        tag = store.put("x", b"same", expected=None)
        assert store.put("x", b"same", expected=None) == tag

    def test_files_travel_both_ways(self, tmp_path: Path) -> None:
        """And what was moved is told."""
        store, data, moved = self.make(), b"weights" * 1000, [0, 0]
        (tmp_path / "in").write_bytes(data)
        store.upload("blobs/w", tmp_path / "in", digest=_sha256(data), moved=lambda n: moved.__setitem__(0, moved[0] + n))
        store.download("blobs/w", tmp_path / "out", digest=_sha256(data), moved=lambda n: moved.__setitem__(1, moved[1] + n))
        assert (tmp_path / "out").read_bytes() == data and moved == [len(data)] * 2

    def test_a_file_with_other_content_than_its_name_is_not_sent(self, tmp_path: Path) -> None:
        """Nothing becomes visible."""
        store = self.make()
        (tmp_path / "in").write_bytes(b"other")
        with pytest.raises(ModelError) as refusal:
            store.upload("blobs/w", tmp_path / "in", digest=_sha256(b"right"))
        assert refusal.value.code == "blob-damaged" and store.head("blobs/w") is None

    def test_damage_is_seen_on_arrival_and_leaves_no_file(self, tmp_path: Path) -> None:
        """Content under a name that it does not hash to."""
        store = self.make()
        store.put("blobs/w", b"tampered", expected=None)
        with pytest.raises(Exception) as refusal:
            store.download("blobs/w", tmp_path / "out", digest=_sha256(b"right"))
        assert getattr(refusal.value, "code", "") == "store-damaged" and not (tmp_path / "out").exists()
        with pytest.raises(NotFound):
            store.download("blobs/none", tmp_path / "out", digest=_sha256(b"right"))

    def test_a_listing_has_all_with_the_prefix_in_order(self) -> None:
        """And none without."""
        store = self.make()
        for key in ("b/2", "a/1", "b/10", "bb"):
            store.put(key, b"x" * len(key), expected=None)
        rows = list(store.list("b/"))
        assert [(row.key, row.size_bytes) for row in rows] == [("b/10", 4), ("b/2", 3)]
        assert all(0 <= row.age_s < 60 for row in rows) and len(list(store.list(""))) == 4

    def test_deleting_is_safe_to_repeat(self) -> None:
        """What is gone stays gone."""
        store = self.make()
        store.put("x", b"1", expected=None)
        store.delete(["x", "y"])
        store.delete(["x"])
        assert list(store.list("")) == []
