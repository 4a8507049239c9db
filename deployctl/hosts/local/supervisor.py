"""The one process that acts for a local environment: reads the wanted release, starts, routes, drains and stops, and tells.

Each step is written down before it is taken, so that a kill at any moment is finished by the next supervisor: it adopts the front
door and every replica that still gives a right answer and ends the rest. The decisions are `core.rollout`, `core.health` and
`core.policies`; this module only carries them out.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import secrets
import signal
import sys
import time
import traceback

from deployctl.adapters import processes
from deployctl.adapters.envoy import DoorSpec
from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.records import FileRecordStore
from deployctl.adapters.repository import TritonRepository
from deployctl.adapters.spanstore import SpanStore
from deployctl.adapters.triton import Installation
from deployctl.core import rollout
from deployctl.core.release import Release
from deployctl.errors import DeployctlError
from deployctl.hosts.local import replica as work
from deployctl.hosts.local.content import Content, ContentBook
from deployctl.hosts.local.frontdoor import FrontDoor
from deployctl.hosts.local.layout import DOOR, MARK, SUPERVISOR, EnvFolder, Failure, ReplicaRecord, StatusFile
from deployctl.hosts.local.logs import trim
from deployctl.hosts.local.meter import ReplicaMeter, row
from deployctl.hosts.local.past import Past
from deployctl.hosts.local.roster import STABLE_S, Live, Roster
from deployctl.hosts.local.scaler import Scaler
from deployctl.hosts.local.span_receiver import SpanReceiver
from deployctl.hosts.local.takeover import survivors, whole
from deployctl.hosts.local.telling import status_of
from deployctl.ports import Workspace

_TICK_S = 0.2
_GIVE_UP = 3
_STOP_S = work.EXIT_TIMEOUT_S + 5.0


class Supervisor:
    """See the module."""

    def __init__(self, workspace: Workspace, env: str) -> None:
        self._folder = EnvFolder(workspace, env)
        blobs = FileBlobStore(workspace.blobs)
        self._records = FileRecordStore(self._folder.root)
        self._repository = TritonRepository(blobs)
        self._book = ContentBook(blobs, FileBundleStore(blobs, workspace.state / "bundles"))
        self._install = Installation(workspace.state / "triton")
        self._events: queue.Queue[work.Event] = queue.Queue()
        self._store = SpanStore(self._folder.store)
        self._past = Past(self._store)
        self._scaler = Scaler(time.monotonic(), self._past.readings)
        self._history_key: object = None
        self._wanted: Release | None = None
        self._releases: dict[int, Release] = {}
        self._unreadable: DeployctlError | None = None
        self._next_row_s = self._next_trim_s = 0.0
        self._last_row_s = time.monotonic()
        self._stopping = False
        self._roster = Roster(self._folder)
        self._spans = SpanReceiver(self._store, self._roster, say)
        self._door = FrontDoor(self._folder, self._roster.state.door, lambda record: self._roster.save(door=record), say)

    # ── life ──

    def run(self) -> None:
        """Adopt what runs, then act until told to stop (SIGTERM), which leaves everything serving."""
        signal.signal(signal.SIGTERM, self._on_signal)
        self._folder.status_file.unlink(missing_ok=True)
        self._folder.logs.mkdir(parents=True, exist_ok=True)
        self._adopt()
        failures = 0
        while not self._stopping:
            try:
                self.tick()
                failures = 0
            except Exception:  # a supervisor that ends over one bad moment would leave nobody to act
                failures += 1
                say(f"a step failed and will be repeated: {traceback.format_exc()}")
                time.sleep(min(5.0, 0.5 * failures))  # a full disk may be emptied
        say("supervisor ends; the front door and the replicas go on")

    def _on_signal(self, *_: object) -> None:
        self._stopping = True

    def tick(self) -> None:
        """One round: facts, decisions, actions, status."""
        self._take_events(_TICK_S)
        self._read_history()
        self._notice_deaths()
        self._finish_stops()
        if self._wanted is not None:
            self._scale()
            if self._keep_door():
                self._act()
            self._conclude()
        self._tell()

    # ── facts ──

    def _take_events(self, wait_s: float) -> None:
        end_s = time.monotonic() + wait_s
        while True:
            try:
                event = self._events.get(timeout=max(0.0, end_s - time.monotonic()))
            except queue.Empty:
                return
            if self._roster.record(event.name) is not None:
                self._take(event)

    def _take(self, event: work.Event) -> None:
        record = self._roster.record(event.name)
        assert record is not None
        if isinstance(event, work.Started):
            ports = {"http_port": event.http_port, "grpc_port": event.grpc_port, "metrics_port": event.metrics_port}
            self._roster.change(event.name, process=event.process, reason="loads its models", **ports)
        elif isinstance(event, work.Ready):
            if record.state == "starting":
                say(f"{event.name} gave its first right answer after {event.took_s:.1f} s")
                self._roster.set_state(event.name, "ready", "answers")
        elif isinstance(event, work.Failed):
            self._failed(record, event.reason, hopeless=event.hopeless)
        else:
            self._looked(record, event)

    def _looked(self, record: ReplicaRecord, event: work.Looked) -> None:
        live = self._roster.live[event.name]
        if event.stats is not None:
            live.meter.add(event.stats, event.pending)
        if event.verdict == "sick" and record.state == "ready":
            say(f"{event.name} is out: {event.reason}")
            self._roster.count_failure(record, event.reason, hopeless=False)
            self._roster.set_state(event.name, "hung", event.reason)
        elif event.verdict == "healthy" and record.state == "hung":
            self._roster.set_state(event.name, "ready", "answers again")
        elif record.state == "ready" and record.reason != event.reason and event.verdict != "sick":
            self._roster.change(event.name, reason=event.reason)

    def _notice_deaths(self) -> None:
        for record in self._roster.state.replicas:
            if record.state in ("starting", "stopping", "dead") or record.process is None or processes.alive(record.process):
                continue  # a starting one's own thread knows better why
            say(f"{record.name} has died")
            if record.state == "ready":
                self._roster.count_failure(record, "the process has died", hopeless=False)
            self._roster.set_state(record.name, "dead", "the process has died")

    def _failed(self, record: ReplicaRecord, reason: str, *, hopeless: bool) -> None:
        """It did not become ready, or an adopted one gave no right answer (which may be the last that serves)."""
        if record.state in ("starting", "ready"):
            say(f"{record.name} does not {'start' if record.state == 'starting' else 'answer'}: {reason}")
            self._roster.count_failure(record, reason, hopeless=hopeless and record.state == "starting")
            self._roster.set_state(record.name, "dead" if record.state == "starting" else "hung", reason)

    def _read_history(self) -> None:
        try:
            key: object = tuple(sorted((p.name, p.stat().st_mtime_ns) for p in self._folder.releases.glob("[0-9]*.json")))
        except FileNotFoundError:
            key = ()
        if key == self._history_key:
            return
        try:
            history = self._records.history()
        except DeployctlError as error:
            self._unreadable = error
            return
        self._history_key, self._unreadable = key, None
        self._releases = {r.revision: r for r in history.releases}
        if history.current is not None and (self._wanted is None or history.current.revision != self._wanted.revision):
            say(f"revision {history.current.revision} is wanted ({history.current.action})")
            if self._wanted is not None and self._roster.state.failure is not None:
                self._roster.save(failure=None)  # somebody decided anew: what failed before may have been mended, and gets its tries again
        self._wanted = history.current

    # ── decisions ──

    def _target(self) -> Release:
        """The release to work towards: the wanted one, or the one that serves where the wanted one was given up."""
        assert self._wanted is not None
        if self._roster.state.failed == self._wanted.revision and self._roster.state.serving in self._releases:
            return self._releases[self._roster.state.serving]
        return self._wanted

    def _scale(self) -> None:
        target = self._target()
        bounds = target.plan.scaling_at(time.time())
        floor, ceiling = max(1, bounds.min_replicas), max(1, bounds.max_replicas)
        number = min(max(self._roster.state.replicas_wanted or target.plan.replicas, floor), ceiling)
        ready = [r for r in self._roster.state.replicas if r.state == "ready" and r.in_rotation]
        settled = bool(ready) and all(r.content == target.content for r in ready)
        if settled and floor < ceiling:
            starting = sum(r.state == "starting" and r.content == target.content for r in self._roster.state.replicas)
            meters = [self._roster.live[r.name].meter for r in ready]
            number = self._scaler.decide(bounds, meters, self._door.meter, ready=len(ready), starting=starting, wanted=number, now_s=time.monotonic())
        elif floor == ceiling:
            self._scaler.says = f"fixed at {floor}"
        if number != self._roster.state.replicas_wanted:
            say(f"replicas wanted: {number} (before: {self._roster.state.replicas_wanted}); {self._scaler.says}")
            self._roster.save(replicas_wanted=number)

    def _act(self) -> None:
        target = self._target()
        failure = self._roster.state.failure
        wait_s = failure.next_start_s - time.time() if failure and failure.content == target.content else 0.0
        now_s = time.monotonic()
        wanted = rollout.Wanted(content=target.content, replicas=self._roster.state.replicas_wanted, may_start_s=now_s + wait_s)
        for action in rollout.decide(wanted, self._roster.views(), now_s):
            match action:
                case rollout.Start():
                    self._start(target)
                case rollout.Route(names=names):
                    if not self._route(names):
                        return  # nobody leaves before traffic has moved
                case rollout.Drain(name=name, reason=reason):
                    self._roster.set_state(name, "draining", reason)
                case rollout.Stop(name=name, reason=reason, graceful=graceful):
                    self._stop(name, reason, graceful=graceful)

    def _conclude(self) -> None:
        """Note that a revision took over, or give one up."""
        assert self._wanted is not None
        target = self._target()
        serving = [r for r in self._roster.state.replicas if r.in_rotation]
        mine = [r for r in serving if r.content == target.content and r.state == "ready"]
        if self._door.settled and mine and len(mine) == len(serving) and len(mine) >= self._roster.state.replicas_wanted:
            if self._roster.state.serving != target.revision:
                say(f"revision {target.revision} serves")
                self._roster.save(serving=target.revision, replicas=tuple(self._restamp(r, target) for r in self._roster.state.replicas))
            if self._roster.state.failure and all(time.monotonic() - self._roster.live[r.name].since_s > STABLE_S for r in mine):
                self._roster.save(failure=None)
            return
        failure, revision = self._roster.state.failure, self._wanted.revision
        another = any(r.content != target.content for r in serving) or (bool(serving) and self._roster.state.serving not in (None, revision))
        if another and failure and failure.content == self._wanted.content and (failure.hopeless or failure.count >= _GIVE_UP):
            say(f"revision {revision} is given up, revision {self._roster.state.serving} keeps serving: {failure.reason}")
            self._scaler.reset(time.monotonic())
            self._roster.save(failed=revision, failed_reason=failure.reason)

    @staticmethod
    def _restamp(record: ReplicaRecord, target: Release) -> ReplicaRecord:
        """A replica whose content a later revision kept belongs to that revision."""
        return dataclasses.replace(record, revision=target.revision) if record.content == target.content else record

    # ── actions ──

    def _start(self, target: Release) -> None:
        try:
            content = self._book.open(target)
        except DeployctlError as error:
            failure = Failure(content=target.content, count=_GIVE_UP, reason=error.message, next_start_s=time.time() + 5.0, hopeless=True)
            self._roster.save(failure=failure)
            return
        if content.trace_rate:
            self._spans.url()
        number = self._roster.state.sequence + 1
        record = ReplicaRecord(
            name=f"replica-{number}",
            revision=target.revision,
            content=target.content,
            state="starting",
            reason="its private repository is being verified",
            since_s=time.time(),
            shm_prefix=work.new_prefix(),
            secret=secrets.token_hex(16),
            restarts=self._roster.state.failure.count if self._roster.state.failure and self._roster.state.failure.content == target.content else 0,
            cores=content.cores,
        )
        self._roster.save(sequence=number, replicas=(*self._roster.state.replicas, record))
        say(f"{record.name} starts (revision {target.revision})")
        self._watch(record, content, None)

    def _watch(self, record: ReplicaRecord, content: Content, adopt: work.Started | None) -> None:
        trace_rate = content.trace_rate
        job = work.Job(
            name=record.name,
            bundle=content.bundle,
            settings=content.settings,
            sample=content.sample,
            folder=self._folder.replicas / record.name,
            log=self._folder.log(record.name),
            mark={MARK: self._folder.mark(record.name)},
            shm_prefix=record.shm_prefix,
            secret=record.secret,
            trace_rate=trace_rate,
            trace_url=self._spans.url() if trace_rate else "",
        )
        thread = work.Replica(job, self._install, self._repository, self._events.put, adopt)
        self._roster.live[record.name] = Live(thread, ReplicaMeter(content.bundle, content.settings), time.monotonic())
        thread.start()

    def _route(self, names: tuple[str, ...]) -> bool:
        """Move traffic to these replicas; False when the front door did not take it (it is told again in the next round)."""
        self._roster.save(replicas=tuple(dataclasses.replace(r, in_rotation=r.name in names) for r in self._roster.state.replicas))
        say(f"traffic goes to {', '.join(names) or 'nobody'}")
        return self._keep_door()

    def _keep_door(self) -> bool:
        assert self._wanted is not None
        routed = [r for r in self._roster.state.replicas if r.in_rotation]
        http = tuple(f"127.0.0.1:{r.http_port}" for r in routed)
        grpc = tuple(f"127.0.0.1:{r.grpc_port}" for r in routed)
        plan = self._wanted.plan
        spec = DoorSpec(http_port=plan.ports.http, grpc_port=plan.ports.grpc, http_upstreams=http, grpc_upstreams=grpc, traced=plan.trace_ratio > 0)
        return self._door.keep(spec)

    def _stop(self, name: str, reason: str, *, graceful: bool) -> None:
        record = self._roster.record(name)
        assert record is not None
        live = self._roster.live[name]
        live.thread.halt()
        live.stop_by_s = time.monotonic() + (_STOP_S if graceful else 0.0)
        say(f"{name} is ended ({reason})")
        self._roster.set_state(name, "stopping", reason)
        if graceful and record.process is not None:
            processes.send(record.process, signal.SIGTERM)

    def _finish_stops(self) -> None:
        """Remove replicas whose process has ended; end by force those that did not in time."""
        now_s = time.monotonic()
        for record in self._roster.state.replicas:
            if record.state != "stopping":
                continue
            live = self._roster.live[record.name]
            if live.thread.is_alive():  # it may be about to spawn a process, which would be left behind
                continue
            gone = record.process is None or not processes.alive(record.process)
            if gone or now_s >= live.stop_by_s:
                self._roster.live.pop(record.name)
                self._roster.forget(record)

    # ── taking over ──

    def _adopt(self) -> None:
        """Find what a former supervisor left: keep what is whole, end the rest.

        Raises:
            DeployctlError: the records or the content of what serves cannot be read; nothing is touched, it goes on serving.
        """
        self._read_history()
        if self._unreadable is not None:
            raise self._unreadable
        known = self._releases.keys()
        contents = {r.name: self._book.open(self._releases[r.revision]) for r in self._roster.state.replicas if whole(r, known)}
        keep = tuple(r for r in survivors(self._folder, self._roster.state, known, say) if r.name in contents)
        self._roster.save(replicas=keep)
        for record in keep:
            self._adopt_one(record, contents[record.name])

    def _adopt_one(self, record: ReplicaRecord, content: Content) -> None:
        """A replica counts as ready as before; its thread proves it by an inference at once, and its failure ends it."""
        assert record.process is not None
        ports = {"http_port": record.http_port, "grpc_port": record.grpc_port, "metrics_port": record.metrics_port}
        started = work.Started(name=record.name, process=record.process, **ports)
        say(f"{record.name} (pid {record.process.pid}) is adopted")
        self._watch(record, content, started)

    # ── telling ──

    def _tell(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_trim_s:
            self._next_trim_s = now_s + 10.0
            trim(self._folder.logs, {r.name for r in self._roster.state.replicas} | {DOOR, SUPERVISOR})
        if now_s < self._next_row_s:
            return
        self._next_row_s = now_s + 1.0
        self._door.read()
        self._past.note(time.time(), self._door.meter)
        ready = [r for r in self._roster.state.replicas if r.state == "ready" and r.in_rotation]
        spent = (now_s - self._last_row_s) * sum(r.cores for r in self._roster.state.replicas)
        self._last_row_s = now_s
        self._roster.spend(spent)
        meters = [self._roster.live[r.name].meter for r in ready]
        self._store.add_row(row(meters, self._door.meter, time.time(), len(ready), self._roster.state.core_seconds))
        recent = tuple(self._store.rows(time.time() - 60.0))
        trouble = self._door.trouble or (self._unreadable.message if self._unreadable else "")
        status = status_of(self._roster.state, self._wanted, trouble=trouble, says=self._scaler.says, recent=recent)
        me = processes.identify(os.getpid())
        assert me is not None
        self._folder.write_status(StatusFile(writer=me, at_s=time.time(), status=status))


def say(text: str) -> None:
    """One line of the supervisor's log."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", file=sys.stderr, flush=True)
