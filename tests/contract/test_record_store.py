"""The release records, in memory and in files, and what only files can suffer."""

import os
import threading

import pytest

from deployctl.adapters.files import FileBlobStore
from deployctl.adapters.records import FileEvidenceStore, FileRecordStore
from deployctl.adapters.remote import Remote
from deployctl.core.release import next_release
from deployctl.errors import LockHeld, ProjectError
from deployctl.testing.contracts import RecordStoreContract, a_plan
from deployctl.testing.memory import MemoryObjects, MemoryRecordStore


class TestMemoryRecords(RecordStoreContract):
    def make(self, folder):
        return MemoryRecordStore()


class TestSharedRecords(RecordStoreContract):
    """Over an ObjectStore; tests/integration/s3 has the same on S3."""

    def make(self, folder):
        return Remote(MemoryObjects(), FileBlobStore(folder), folder, owner="ada@host", poll_s=0.01).records("svc", "prod")


class TestFileRecords(RecordStoreContract):
    def make(self, folder):
        return FileRecordStore(folder / "env")

    def test_another_process_sees_the_same(self, tmp_path):
        made = self.append(self.make(tmp_path))
        assert self.make(tmp_path).history().current == made

    def test_even_without_the_lock_one_of_racing_writers_wins(self, tmp_path):
        store = self.make(tmp_path)
        history = store.history()
        start, outcomes = threading.Barrier(8), []

        def race(number):
            release = next_release(history, a_plan(replicas=number + 1), action="up", now_s=1.0)
            start.wait()
            try:
                store.append(release, expected_parent=None)
                outcomes.append("won")
            except LockHeld as refusal:
                outcomes.append(refusal.code)

        threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert sorted(outcomes) == ["plan-stale"] * 7 + ["won"]

    def test_a_changed_record_is_seen(self, tmp_path):
        store = self.make(tmp_path)
        self.append(store)
        self.append(store, replicas=2)
        path = tmp_path / "env" / "releases" / "000001.json"
        path.write_text(path.read_text().replace('"replicas": 1', '"replicas": 7'))
        with pytest.raises(ProjectError) as refusal:
            store.history()
        assert refusal.value.code == "record-damaged" and "revision 1 was changed" in refusal.value.message

    def test_a_missing_record_is_seen(self, tmp_path):
        store = self.make(tmp_path)
        for n in (1, 2, 3):
            self.append(store, replicas=n)
        (tmp_path / "env" / "releases" / "000002.json").unlink()
        with pytest.raises(ProjectError, match="revision 2 is missing"):
            store.history()

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 2}', "\x00"])
    def test_a_cut_off_record_is_an_error_with_its_path(self, tmp_path, text):
        store = self.make(tmp_path)
        self.append(store)
        path = tmp_path / "env" / "releases" / "000001.json"
        path.write_text(text)
        with pytest.raises(ProjectError) as refusal:
            store.history()
        assert refusal.value.where == str(path)

    def test_leftovers_of_a_killed_writer_are_no_records(self, tmp_path):
        store = self.make(tmp_path)
        made = self.append(store)
        (tmp_path / "env" / "releases" / ".000002.json.99.1.tmp").write_text("{")
        assert store.history().releases == (made,)

    def test_the_lock_ends_with_its_process(self, tmp_path):
        store = self.make(tmp_path)
        child = os.fork()
        if child == 0:
            store.exclusive().__enter__()
            os._exit(0)
        os.waitpid(child, 0)
        with store.exclusive():
            self.append(store)

    def test_a_damaged_hold_list_is_an_error(self, tmp_path):
        store = self.make(tmp_path)
        store.hold("sha256:1")
        (tmp_path / "env" / "held.json").write_text("{}")
        with pytest.raises(ProjectError, match="on hold"):
            store.history()


def test_a_changed_proof_does_not_count(tmp_path):
    (tmp_path / "0123456789abcdef.json").write_text("{}")
    with pytest.raises(ProjectError) as refusal:
        FileEvidenceStore(tmp_path).get("sha256:0123456789abcdef" + "0" * 48)
    assert refusal.value.code == "record-damaged"


def test_an_unknown_proof_is_none(tmp_path):
    assert FileEvidenceStore(tmp_path / "none").get("sha256:" + "0" * 64) is None
