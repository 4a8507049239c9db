"""lock/<env>.lock: an absent file is an empty lock, writing is whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployctl.config import files, locks
from deployctl.core.lock import Lock, ScaleOverride
from deployctl.errors import MachineError, ProjectError

LOCK = Lock(env="prod", bundle="sha256:ab", override=ScaleOverride(min_replicas=1, max_replicas=4, until_s=2.5, reason="sale"))


def test_absent_is_empty(tmp_path):
    assert locks.read(tmp_path / "lock" / "prod.lock", "prod") == Lock(env="prod")


def test_written_is_read_and_byte_identical(tmp_path):
    path = tmp_path / "lock" / "prod.lock"
    locks.write(path, LOCK)
    first = path.read_bytes()
    assert locks.read(path, "prod") == LOCK
    locks.write(path, locks.read(path, "prod"))
    assert path.read_bytes() == first
    assert sorted(p.name for p in path.parent.iterdir()) == ["prod.lock"]


def test_damaged_and_foreign_locks_are_refused(tmp_path):
    path = tmp_path / "prod.lock"
    locks.write(path, LOCK)
    with pytest.raises(ProjectError) as caught:
        locks.read(path, "dev")
    assert caught.value.code == "lock-other-env"
    for damage in (path.read_bytes()[:-9], b"\xff\xfe", b""):
        path.write_bytes(damage)
        with pytest.raises(ProjectError) as caught:
            locks.read(path, "prod")
        assert caught.value.code == "record-damaged"


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    """The write meets a real obstacle: the target is a folder, so the rename at the very end fails."""
    path = tmp_path / "prod.lock"
    path.mkdir()
    (path / "inside").touch()
    with pytest.raises(MachineError) as caught:
        locks.write(path, LOCK)
    assert caught.value.code == "file-not-written"
    assert [p.name for p in tmp_path.iterdir()] == ["prod.lock"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_told(tmp_path):
    """/proc takes no files: what the kernel says about it becomes a sentence with a remedy."""
    with pytest.raises(MachineError) as caught:
        files.replace(Path("/proc/deployctl.lock"), b"x")
    assert caught.value.code == "file-not-written"


def test_readers_see_one_or_the_other(tmp_path):
    """Two writers and a reader: every read is one of the whole texts."""
    import threading

    path = tmp_path / "prod.lock"
    texts = [bytes([65 + i]) * 4096 for i in range(2)]
    files.replace(path, texts[0])

    def work(data):
        for _ in range(40):
            files.replace(path, data)

    threads = [threading.Thread(target=work, args=(t,)) for t in texts]
    for thread in threads:
        thread.start()
    seen = set()
    while any(t.is_alive() for t in threads):
        seen.add(path.read_bytes())
    for thread in threads:
        thread.join()
    seen.add(path.read_bytes())
    assert seen <= set(texts)
    assert sorted(os.listdir(tmp_path)) == ["prod.lock"]  # noqa: PTH208
