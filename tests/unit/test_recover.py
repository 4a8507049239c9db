"""The durable copy of the records: what each change adds to it, and what comes back from it."""

import dataclasses

import pytest

from deployctl.adapters.remote import Remote
from deployctl.config import locks
from deployctl.core import store
from deployctl.core.demand import RateStep
from deployctl.core.lock import Lock
from deployctl.core.project import Environment, ModelSource, Project, Traffic
from deployctl.core.release import next_release
from deployctl.core.slo import Objective, Slo
from deployctl.errors import CloudError, LockHeld, ProjectError
from deployctl.flows import _publish
from deployctl.flows._mirror import mirror
from deployctl.flows.recover import recover
from deployctl.testing.builders import sleep_bundle
from deployctl.testing.contracts import a_plan
from deployctl.testing.memory import MemoryObjects, MemoryRecordStore, MemoryToolbox, NotedProgress

PROJECT = Project(
    name="svc",
    model=ModelSource(kind="triton", value="repository"),
    slo=Slo(objectives=(Objective(metric="latency", percentile=99.0, max=0.1),)),
    traffic=Traffic(steps=(RateStep(start_s=0.0, rate_rps=1.0),)),
    environments=(Environment(name="local"),),
)


@pytest.fixture
def objects():
    return MemoryObjects()


def machine(folder, objects):
    tools = MemoryToolbox(folder)
    tools.remote = Remote(objects, tools.blobs, folder / "fetch", owner="ada@host", patience_s=0.0, poll_s=0.01)
    return tools


@pytest.fixture
def tools(tmp_path, objects):
    return machine(tmp_path / "one", objects)


def released(tools, **plan):
    history = tools.records.history()
    lock = Lock(env="local", bundle=plan.get("bundle"))
    release = next_release(history, a_plan(**plan), action="up", now_s=1.0, by="ada@host (pid 1)", lock=lock)
    tools.records.append(release, expected_parent=release.parent)
    return release


def copied(tools):
    talk = NotedProgress()
    mirror(tools, talk, "svc", "local")
    return [text for kind, text in talk.said if kind == "warn"]


def there(tools):
    return tools.remote.records("svc", "local").history()


def test_a_change_adds_what_the_copy_lacks_and_its_holds(tools):
    one, two = released(tools), released(tools, replicas=2)
    tools.records.hold("sha256:" + "c" * 64)
    assert copied(tools) == [] and there(tools) == tools.records.history()
    three = released(tools, replicas=3)
    tools.records.allow("cc")
    assert copied(tools) == [] and (there(tools).releases, there(tools).held) == ((one, two, three), ())


def test_nothing_is_written_where_the_copy_is_whole(tools, objects):
    released(tools)
    copied(tools)
    before = objects._version
    assert copied(tools) == [] and objects._version == before


def test_a_copy_that_fails_is_told_and_undoes_nothing(tools, objects):
    release = released(tools)
    objects.list = lambda _: (_ for _ in ()).throw(CloudError("the store refuses you", hint="h", code="store-denied"))
    (said,) = copied(tools)
    assert "the store refuses you" in said and "deployctl recover --env local" in said
    assert tools.records.history().releases == (release,)


def test_another_history_in_the_store_is_told_and_not_touched(tools, objects, tmp_path):
    released(tools)
    copied(tools)
    other = machine(tmp_path / "two", objects)
    released(other, replicas=9)
    (said,) = copied(other)
    assert "its revision 1 is another one" in said and there(other).releases == tools.records.history().releases
    with pytest.raises(ProjectError) as refusal:
        recover(PROJECT, "local", other)
    assert refusal.value.code == "records-diverged"


def test_an_empty_machine_gets_everything_back(tools, objects, tmp_path):
    bundle = sleep_bundle(tools.blobs, tools.bundles)
    _publish.publish(tools, bundle, NotedProgress(), env="local")
    released(tools, bundle=bundle.digest)
    tools.records.hold(released(tools, replicas=2).content)
    copied(tools)
    other = machine(tmp_path / "two", objects)
    found = recover(PROJECT, "local", other)
    assert other.records.history() == tools.records.history()
    assert [(r.revision, r.source, r.bundle_whole) for r in found.releases] == [(1, "store", True), (2, "store", False)]
    assert found.lock_written and locks.read(other.workspace.lock("local"), "local") == Lock(env="local", held=tools.records.history().held)
    again = recover(PROJECT, "local", other)
    assert [r.source for r in again.releases] == ["both", "both"] and not again.lost
    assert _publish.fetch(other, bundle.digest, NotedProgress(), env="local") == bundle


def test_a_lock_that_exists_is_left_alone(tools):
    released(tools)
    copied(tools)
    mine = Lock(env="local", bundle="sha256:" + "b" * 64)
    locks.write(tools.workspace.lock("local"), mine)
    assert not recover(PROJECT, "local", tools).lock_written and locks.read(tools.workspace.lock("local"), "local") == mine


@pytest.mark.parametrize("harm", ["changed", "missing", "newest missing"])
def test_what_is_lost_is_told_and_repaired_where_somebody_has_it(tools, objects, tmp_path, harm):
    for n in (1, 2, 3):
        released(tools, replicas=n)
    copied(tools)
    key = store.release_key("svc", "local", 3 if harm == "newest missing" else 2)
    found = objects.get(key)
    objects.delete([key])
    if harm == "changed":
        objects.put(key, found.data.replace(b'"replicas": 2', b'"replicas": 7'), expected=None)
    with pytest.raises(ProjectError) as refusal:
        there(tools)
    assert refusal.value.code == "record-damaged"
    empty = machine(tmp_path / "two", objects)
    part = recover(PROJECT, "local", empty)
    sound = 2 if harm == "newest missing" else 1
    assert len(part.releases) == sound and part.lost and part.repaired == 0
    mended = recover(PROJECT, "local", tools)
    assert mended.lost == () and mended.repaired > 0 and there(tools) == tools.records.history()


class LatestOnly(MemoryRecordStore):
    """As a cluster keeps them: the last two."""

    def append(self, release, *, expected_parent):
        super().append(release, expected_parent=expected_parent)
        del self._releases[:-2]


def test_a_copy_outlives_what_a_cluster_drops_and_may_begin_late(tools, objects, tmp_path):
    tools.records = LatestOnly()
    for n in range(1, 5):
        released(tools, replicas=n)
        assert copied(tools) == []
    assert [r.revision for r in there(tools).releases] == [1, 2, 3, 4]
    late = machine(tmp_path / "late", MemoryObjects())
    late.records = tools.records
    assert copied(late) == [] and [r.revision for r in there(late).releases] == [3, 4]
    released(late, replicas=5)
    assert copied(late) == [] and [r.revision for r in there(late).releases] == [3, 4, 5]
    late.remote.objects.delete([store.release_key("svc", "local", 3)])
    assert there_lost(late)
    new = machine(tmp_path / "new", objects)
    new.records = LatestOnly()
    found = recover(PROJECT, "local", new)
    assert [r.revision for r in found.releases] == [1, 2, 3, 4] and [r.revision for r in new.records.history().releases] == [3, 4]


def there_lost(tools):
    return tools.remote.records("svc", "local").salvage()[1]


def test_a_writer_that_slept_is_refused(tools, objects):
    """Its lease ran out and somebody else's release came: the fencing token of the newer holder stands in the way."""
    first = released(tools)
    copied(tools)
    stale, fresh = tools.remote.records("svc", "local"), tools.remote.records("svc", "local")
    late = next_release(tools.records.history(), a_plan(replicas=5), action="up", now_s=2.0)
    with stale.exclusive():
        objects.now_s += 100
        with fresh.exclusive():
            newer = next_release(tools.records.history(), a_plan(replicas=6), action="up", now_s=2.0)
            fresh.append(newer, expected_parent=first.digest)
            with pytest.raises(LockHeld) as refusal:
                stale.append(dataclasses.replace(late, revision=3, parent=newer.digest), expected_parent=newer.digest)
    assert refusal.value.code == "store-lease-lost" and there(tools).releases == (first, newer)


def test_a_living_holder_is_named_and_a_dead_one_replaced(tools, objects, tmp_path):
    other = machine(tmp_path / "two", objects)
    with tools.remote.lease("store"):
        with pytest.raises(LockHeld) as refusal, other.remote.lease("store"):
            pass
        assert refusal.value.code == "store-lease-held" and refusal.value.message.startswith("ada@host is changing")
        objects.now_s += 61
        with other.remote.lease("store") as renew:
            assert renew() == 2


def test_a_store_that_is_empty_has_nothing_to_give(tools):
    found = recover(PROJECT, "local", tools)
    assert found.releases == () and tools.records.history() == MemoryRecordStore().history()
