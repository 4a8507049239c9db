"""The store of measurements under kills, damage and bounds."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from deployctl.adapters.spanstore import SpanStore
from deployctl.core.spans import Span
from deployctl.errors import MachineError


def a_span(number, at_s=1000.0):
    end_ns = int(at_s * 1e9)
    return Span(trace_id=f"{number:032x}", span_id=f"{number:016x}", name="InferRequest", start_ns=end_ns - 5, end_ns=end_ns, events={"A": 1})


def test_what_went_in_comes_out_also_for_another_reader(tmp_path):
    store = SpanStore(tmp_path / "s.db")
    store.add_spans([a_span(1, 10.0), a_span(2, 20.0)])
    store.add_row({"at_s": 10.0, "p99_s": 0.1})
    other = SpanStore(tmp_path / "s.db")
    assert other.spans() == [a_span(1, 10.0), a_span(2, 20.0)] and other.spans(15.0) == [a_span(2, 20.0)]
    assert other.rows() == [{"at_s": 10.0, "p99_s": 0.1}] and other.rows(11.0) == []


def test_the_same_span_twice_is_one(tmp_path):
    store = SpanStore(tmp_path / "s.db")
    store.add_spans([a_span(1)])
    store.add_spans([a_span(1)])
    assert store.counts() == {"spans": 1, "stats": 0, "load": 0}


def test_bounded_by_count_and_age(tmp_path):
    store = SpanStore(tmp_path / "s.db", max_spans=100, max_rows=50, max_age_s=400.0)
    store.add_spans([a_span(n, 1000.0 + n) for n in range(1200)])
    for n in range(600):
        store.add_row({"at_s": 1000.0 + n})
    counts = store.counts()
    assert counts["spans"] <= 100 and counts["stats"] <= 50 + 500  # pruned every 500 writes
    assert store.spans()[-1].end_ns == int(2199.0 * 1e9)
    old = SpanStore(tmp_path / "old.db", max_age_s=100.0)
    old.add_spans([a_span(n, 1000.0 + n) for n in range(600)])
    assert min(s.end_ns for s in old.spans()) >= int((1599.0 - 100.0) * 1e9)


def test_threads_write_together(tmp_path):
    store = SpanStore(tmp_path / "s.db")
    threads = [threading.Thread(target=lambda k=k: [store.add_spans([a_span(k * 100 + n)]) for n in range(20)]) for k in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert store.counts()["spans"] == 80 and store.dropped == 0


@pytest.mark.parametrize("damage", ["garbage", "cut", "middle"])
def test_a_damaged_file_is_moved_aside_and_said(tmp_path, damage):
    path = tmp_path / "s.db"
    store = SpanStore(path)
    store.add_spans([a_span(n) for n in range(2000)])
    store.close()
    data = bytearray(path.read_bytes())
    if damage == "garbage":
        data[:] = b"x" * len(data)
    elif damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[4096 : len(data) - 4096] = b"\xff" * (len(data) - 8192)
    path.write_bytes(bytes(data))
    again = SpanStore(path)
    assert len(again.notices) == 1 and "s.db.damaged-1" in again.notices[0]
    again.add_spans([a_span(1)])
    assert again.counts()["spans"] == 1 and (tmp_path / "s.db.damaged-1").exists()


def test_damage_while_running_heals(tmp_path):
    path = tmp_path / "s.db"
    store = SpanStore(path)
    store.add_spans([a_span(n) for n in range(500)])
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store._db.execute("PRAGMA cache_size=0")  # what is read comes from the file
    store._db.execute("PRAGMA shrink_memory")
    path.write_bytes(b"y" * path.stat().st_size)
    store.add_spans([a_span(9)])
    assert store.spans() == [a_span(9)] and len(store.notices) == 1


def test_killed_while_writing_the_file_is_whole(tmp_path):
    path = tmp_path / "s.db"
    code = (
        "import sys; from pathlib import Path; from deployctl.adapters.spanstore import SpanStore\n"
        f"s = SpanStore(Path({str(path)!r}))\n"
        "n = 0\n"
        "while True:\n"
        "    s.add_row({'at_s': float(n)}); n += 1\n"
        "    if n % 50 == 0: print(n, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    written = int(child.stdout.readline()) and int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = SpanStore(path)
    assert store.notices == [] and len(store.rows()) >= written


def test_a_full_disk_drops_and_counts_but_never_raises(tmp_path):
    store = SpanStore(tmp_path / "s.db")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + 2}")  # SQLite's own way to say that the disk is full
    for block in range(10):
        store.add_spans([a_span(block * 1000 + n) for n in range(200)])
    assert store.dropped > 0 and len(store.notices) == 1 and "dropped" in store.notices[0]
    assert isinstance(store.spans(), list)


def test_a_path_that_cannot_be_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "s.db").mkdir()
    with pytest.raises(MachineError) as failure:
        SpanStore(tmp_path / "s.db")
    assert failure.value.code == "store-unusable"


def test_the_format_is_plain_sqlite(tmp_path):
    SpanStore(tmp_path / "s.db").add_row({"at_s": 1.0})
    assert sqlite3.connect(tmp_path / "s.db").execute("SELECT count(*) FROM stats").fetchone() == (1,)
