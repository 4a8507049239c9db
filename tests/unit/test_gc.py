"""Collecting: what is needed stays, whatever publishes and releases in between; what cannot be read is never garbage."""

import dataclasses
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.remote import Remote, parallel
from deployctl.config import locks
from deployctl.core import codec, collect, store
from deployctl.core.artifact import FileRef
from deployctl.core.bundle import Bundle
from deployctl.core.demand import RateStep
from deployctl.core.lock import Lock
from deployctl.core.project import Environment, ModelSource, Project, Traffic
from deployctl.core.release import next_release
from deployctl.core.slo import Objective, Slo
from deployctl.errors import LockHeld, Refused
from deployctl.flows import _cache, _publish
from deployctl.flows.gc import gc
from deployctl.testing.contracts import a_plan
from deployctl.testing.memory import MemoryObjects, MemoryToolbox, NotedProgress

DAY_S = 86_400.0
BUNDLES = 4
PROJECT = Project(
    name="svc",
    model=ModelSource(kind="triton", value="repository"),
    slo=Slo(objectives=(Objective(metric="latency", percentile=99.0, max=0.1),)),
    traffic=Traffic(steps=(RateStep(start_s=0.0, rate_rps=1.0),)),
    environments=(Environment(name="prod"),),
)


class Stage(MemoryObjects):
    """A store in which, before any of its operations, something else may happen as a whole: `between[n]` before the n-th."""

    def __init__(self):
        super().__init__()
        self.between, self.count, self.inside = {}, 0, False

    def _happen(self, operation):
        act, self.count = self.between.get(self.count), self.count + 1
        if act is not None and not self.inside:
            self.inside = True
            try:
                act(operation)
            finally:
                self.inside = False

    def get(self, key):
        self._happen("get")
        return super().get(key)

    def head(self, key):
        self._happen("head")
        return super().head(key)

    def put(self, key, data, *, expected):
        self._happen("put")
        return super().put(key, data, expected=expected)

    def upload(self, key, path, *, digest, moved=lambda _: None):
        self._happen("upload")
        super().upload(key, path, digest=digest, moved=moved)

    def list(self, prefix):
        self._happen("list")
        return super().list(prefix)

    def delete(self, keys):
        self._happen("delete")
        super().delete(keys)


def bundles_over(blobs):
    """Bundles that share five blobs."""
    parts = [blobs.put_bytes(bytes([n]) * (n + 1)) for n in range(5)]
    sample = blobs.put_bytes(b"sample")
    found = []
    for n in range(BUNDLES):
        chosen = sorted({parts[n % 5], parts[(n * 2 + 1) % 5]})
        files = tuple(FileRef(path=f"m/1/{i}", digest=d, size_bytes=len(blobs.data[d])) for i, d in enumerate(chosen))
        found.append(Bundle(name=f"b{n}", entry="m", variant="v", models=(), files=files, sample=sample))
    return found


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """So that the same script always happens in the same order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_publish, "PARALLEL", 1)
        patch.setattr(parallel, "PARALLEL", 1)
        yield


class World:
    """Two machines that share a store."""

    def __init__(self, folder):
        self.objects = Stage()
        self.tools = []
        for name in ("ci", "ops"):
            tools = MemoryToolbox(folder / name)
            tools.remote = Remote(
                self.objects,
                tools.blobs,
                folder / name / "fetch",
                owner=name,
                patience_s=0.0,
                monotonic_s=lambda: self.objects.now_s,
                sleep_s=lambda _: None,
            )
            self.tools.append(tools)
        self.bundles = bundles_over(self.tools[0].blobs)
        bundles_over(self.tools[1].blobs)
        self.released = set()

    def publish(self, number, who=0):
        bundles_over(self.tools[who].blobs)  # packaged again, should this machine have collected its own
        _publish.publish(self.tools[who], self.bundles[number], NotedProgress(), env="prod")

    def release(self, number, who=0):
        """What `up` does: publish, then record."""
        self.publish(number, who)
        records = self.tools[who].remote.records("svc", "prod")
        newest = records.newest()
        release = dataclasses.replace(
            next_release(records.history(), a_plan(bundle=self.bundles[number].digest), action="up", now_s=1.0),
            parent=newest.digest if newest else None,
        )
        with records.exclusive():
            records.append(release, expected_parent=release.parent)
        self.released.add(number)

    def collect(self, who=1):
        gc(PROJECT, self.tools[who], NotedProgress(), toolbox_of=lambda _: MemoryToolbox(self.tools[who].root), grace_s=DAY_S)

    def pause(self, seconds, operation=""):
        # The store cannot make a delete conditional: after the renewal before it a pause may not outlast the lease.
        self.objects.now_s += min(seconds, 30.0) if operation == "delete" else seconds

    def whole(self):
        for number in self.released:
            bundle = self.bundles[number]
            for key in (store.bundle_key(bundle.digest), *map(store.blob_key, collect.content_of(bundle))):
                assert MemoryObjects.head(self.objects, key), f"release of bundle {number} lost {key}"


NUMBERS = st.integers(0, BUNDLES - 1)
OUTER = st.one_of(
    st.tuples(st.just("release"), NUMBERS),
    st.tuples(st.just("collect"), st.just(0)),
    st.tuples(st.just("publish"), NUMBERS),
    st.tuples(st.just("pause"), st.sampled_from([4000.0, 2 * DAY_S])),
)
INNER = st.one_of(
    st.lists(st.just(("collect", 0)), min_size=1, max_size=1),
    st.tuples(st.just(("pause", 100.0)), st.tuples(st.just("release"), NUMBERS)),
    st.lists(st.one_of(st.tuples(st.just("release"), NUMBERS), st.just(("collect", 0)), st.just(("pause", 50.0))), min_size=1, max_size=3),
)
STEP = st.tuples(OUTER, st.lists(st.tuples(st.integers(0, 35), INNER), max_size=2))
SCRIPT = st.tuples(st.sets(NUMBERS), st.lists(STEP, min_size=1, max_size=4))


def do(world, action, who, operation=""):
    name, value = action
    try:
        if name == "pause":
            world.pause(value, operation)
        elif name == "collect":
            world.collect(who)
        else:
            getattr(world, name)(value, who)
    except LockHeld as refusal:  # two at once: one is told; it changed nothing after that
        assert refusal.code in ("store-lease-held", "store-lease-lost", "plan-stale")


@settings(max_examples=300)
@given(SCRIPT)
def test_no_interleaving_takes_what_a_release_needs(tmp_path_factory, script):
    _drive(World(tmp_path_factory.mktemp("gc")), script)


@pytest.mark.parametrize("inner", [[("collect", 0)], [("pause", 100.0), ("release", 0)], [("pause", 100.0), ("collect", 0), ("release", 1)]], ids=str)
@pytest.mark.parametrize("outer", [("collect", 0), ("release", 0)], ids=str)
def test_one_interruption_anywhere_takes_nothing(tmp_path, outer, inner):
    """Every place of one interruption, old content on both sides."""
    for at in range(40):
        _drive(World(tmp_path / str(at)), ({0, 1}, [(outer, [(at, inner)])]))


@pytest.mark.full
@settings(max_examples=3_000)
@given(SCRIPT)
def test_no_interleaving_of_thousands_takes_what_a_release_needs(tmp_path_factory, script):
    _drive(World(tmp_path_factory.mktemp("gc")), script)


def _drive(world, script):
    """Some bundles were published long ago; then each action, with others happening as a whole before chosen operations of it."""
    old, steps = script
    for number in sorted(old):
        world.publish(number)
    world.pause(2 * DAY_S)
    for action, inner in steps:
        world.objects.count = 0
        world.objects.between = {at: (lambda operation, acts=acts: [do(world, a, 1, operation) for a in acts]) for at, acts in inner}
        do(world, action, 0)
        world.objects.between = {}
        world.whole()


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_what_nobody_needs_goes_and_the_rest_stays(world):
    for number in (0, 1):
        world.publish(number)
    world.release(3)
    world.objects.now_s += 2 * DAY_S
    found = gc(PROJECT, world.tools[1], NotedProgress(), toolbox_of=lambda _: MemoryToolbox(world.tools[1].root), dry_run=True)[1]
    assert found.removed > 0 and len(list(world.objects.list("bundles/"))) == 3
    world.collect()
    assert [o.key for o in world.objects.list("bundles/")] == [store.bundle_key(world.bundles[3].digest)]
    assert {store.digest_at(o.key) for o in world.objects.list("blobs/")} == collect.content_of(world.bundles[3])


def test_young_content_stays(world):
    world.publish(0)
    world.collect()
    world.publish(0)
    assert MemoryObjects.head(world.objects, store.bundle_key(world.bundles[0].digest))


def test_a_published_lock_keeps_its_bundle(world):
    world.publish(0)
    lock = codec.dumps(Lock(env="prod", bundle=world.bundles[0].digest))
    world.objects.put(store.lock_key("other", "prod"), lock.encode(), expected=None)
    world.objects.now_s += 2 * DAY_S
    world.collect()
    world.released.add(0)
    world.whole()


def test_what_commits_released_stays(world):
    """Of two that were released by commits, the older one too: a commit may return to it."""
    for number in (0, 1):
        bundle = world.bundles[number]
        _publish.keep(world.tools[0], bundle, "svc", Lock(env="prod", bundle=bundle.digest), NotedProgress())
    world.objects.now_s += 2 * DAY_S
    world.collect()
    world.released |= {0, 1}
    world.whole()


@pytest.mark.parametrize("where", ["release", "lock", "manifest"])
def test_what_cannot_be_read_stops_it(world, where):
    world.release(0)
    world.publish(1)
    world.objects.now_s += 2 * DAY_S
    keys = {"release": store.release_key("svc", "prod", 1), "lock": store.lock_key("svc", "x"), "manifest": store.bundle_key(world.bundles[0].digest)}
    found = world.objects.get(keys[where])
    world.objects.put(keys[where], b"{", expected=found.tag if found else None)
    before = [o.key for o in world.objects.list("")]
    with pytest.raises(Refused) as refusal:
        world.collect()
    assert refusal.value.code == "gc-unreadable" and [o.key for o in world.objects.list("")] == sorted({*before, "leases/store.json"})


def test_a_grace_shorter_than_publishing_needs_is_refused(world):
    with pytest.raises(Refused) as refusal:
        gc(PROJECT, world.tools[0], NotedProgress(), toolbox_of=lambda _: world.tools[0], grace_s=600.0)
    assert refusal.value.code == "gc-grace"


def test_on_this_machine_too(tmp_path):
    tools = MemoryToolbox(tmp_path)
    tools.blobs = FileBlobStore(tmp_path / ".deployctl/blobs")
    tools.bundles = FileBundleStore(tools.blobs, tmp_path / ".deployctl/bundles")
    made = {}
    for name in ("released", "locked", "forgotten", "young"):
        sample = tools.blobs.put_bytes(name.encode())
        made[name] = Bundle(name=name, entry="m", variant="v", models=(), files=(), sample=sample)
        tools.bundles.save(made[name])
    tools.records.append(next_release(tools.records.history(), a_plan(bundle=made["released"].digest), action="up", now_s=1.0), expected_parent=None)
    locks.write(tools.workspace.lock("prod"), Lock(env="prod", bundle=made["locked"].digest))
    old = time.time() - 2 * DAY_S
    for path in [*(tmp_path / ".deployctl/blobs/sha256").rglob("*"), *(tmp_path / ".deployctl/bundles").glob("*")]:
        if path.is_file() and made["young"].sample.removeprefix("sha256:")[2:] != path.name:
            os.utime(path, (old, old))
    loose = tools.blobs.put_bytes(b"just made")
    assert tools.blobs.put_bytes(b"young") == made["young"].sample
    swept, _ = gc(PROJECT, tools, NotedProgress(), toolbox_of=lambda _: tools)
    assert (swept.kept, swept.young, swept.removed) == (2, 2, 1)
    assert [n for n in made if tools.blobs.has(made[n].sample)] == ["released", "locked", "young"] and tools.blobs.has(loose)
    assert {c.digest for c in tools.bundles.stored()} == {made["released"].digest, made["locked"].digest}


def test_cached_results_of_what_nothing_names_go(tmp_path):
    tools, packed = MemoryToolbox(tmp_path), {}
    tools.blobs = FileBlobStore(tmp_path / ".deployctl/blobs")
    tools.bundles = FileBundleStore(tools.blobs, tmp_path / ".deployctl/bundles")
    for name in ("released", "forgotten"):
        packed[name] = FileRef(path="env.tar.gz", digest=tools.blobs.put_bytes(name.encode()), size_bytes=8)
    bundles = {n: Bundle(name=n, entry="m", variant="v", models=(), files=(packed[n],), sample=packed[n].digest) for n in packed}
    tools.bundles.save(bundles["released"])
    release = next_release(tools.records.history(), a_plan(bundle=bundles["released"].digest), action="up", now_s=1.0)
    tools.records.append(release, expected_parent=None)
    cache = tools.workspace.cache
    for name, bundle in bundles.items():
        _cache.write(cache, "probe", {"bundle": bundle.digest, "what": "cold-start"}, packed[name])
        _cache.write(cache, "environment", {"files": name}, packed[name])
    (cache / "probe" / "an-earlier-form.json").write_text("{}")
    files = [p for p in cache.rglob("*") if p.is_file()]
    for path in files:
        os.utime(path, (1.0, 1.0))
    _cache.write(cache, "proof", {"bundle": bundles["forgotten"].digest}, packed["forgotten"])

    told = gc(PROJECT, tools, NotedProgress(), toolbox_of=lambda _: tools, dry_run=True)[-1]
    assert (told.place, told.kept, told.young, told.removed) == (".deployctl/cache", 2, 1, 3)
    assert told.removed_bytes == sum(p.stat().st_size for p in files) - told.kept_bytes
    assert all(p.exists() for p in files)
    assert gc(PROJECT, tools, NotedProgress(), toolbox_of=lambda _: tools)[-1] == told
    left = {p.relative_to(cache).parts[:2] for p in cache.rglob("*") if p.is_file()}
    probe, proof = (("probe", bundles["released"].digest[7:]), ("proof", bundles["forgotten"].digest[7:]))
    assert probe in left and proof in left and sum(part[0] == "environment" for part in left) == 1 and len(left) == 3
    assert _cache.read(FileRef, cache, "environment", {"files": "released"}) == packed["released"]


def test_storing_again_makes_a_blob_young(tmp_path):
    blobs = FileBlobStore(tmp_path)
    digest = blobs.put_bytes(b"x")
    os.utime(blobs.path(digest), (1.0, 1.0))
    assert next(iter(blobs.stored())).age_s > DAY_S
    blobs.put_bytes(b"x")
    assert blobs.discard([digest], older_than_s=DAY_S) == 0 and blobs.has(digest)
