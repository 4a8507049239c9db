"""Kills and hangs of replicas, stubs, the front door and the supervisor: what serves goes on, what is lost comes back, nothing is left over."""

import os
import random
import re
import shutil
import signal

import pytest
from local_kit import WAIT_S, Load, Quiet, supervisors

from deployctl.adapters import processes
from deployctl.adapters.envoy import EnvoyDoor
from deployctl.errors import MachineError

pytestmark = pytest.mark.triton


def kill(process, number=signal.SIGKILL):
    os.kill(process if isinstance(process, int) else process.pid, number)


def kill_supervisor(project):
    kill(project.supervisor())
    assert processes.wait_for(lambda: project.supervisor() is None, WAIT_S)


def stubs(server_pid):
    return [p for p in processes.members(server_pid) if p.pid != server_pid]


def wait_replaced(project, name, replicas):
    return project.wait(lambda s: name not in {r.name for r in s.replicas} and [r.state for r in s.replicas] == ["ready"] * replicas)


REASONS = {"kill": "has died", "hang": "hung: the canary", "stub": "Python model has died"}


def test_a_broken_replica_leaves_the_rotation_and_is_replaced(project):
    project.release(project.bundle(), replicas=2)
    for fault, reason in REASONS.items():
        victim, other = project.serving(1, 2).replicas
        if fault == "stub":
            for stub in stubs(victim.pid):
                kill(stub)
        else:
            kill(victim.pid, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
        out = project.wait(lambda s, name=victim.name: all(r.state != "ready" for r in s.replicas if r.name == name))
        assert other.name in {r.name for r in out.replicas if r.state == "ready"}
        status = wait_replaced(project, victim.name, 2)
        assert other.pid in {r.pid for r in status.replicas}
        assert processes.wait_for(lambda pid=victim.pid: processes.identify(pid) is None and not processes.members(pid), WAIT_S)
        assert [project.ask() for _ in range(10)] == [1.0] * 10
        assert any(victim.name in line and reason in line for line in project.lines("supervisor")), fault


def test_the_last_replica_is_never_ejected_for_being_hung(project):
    project.release(project.bundle())
    victim = project.serving(1, 1).replicas[0]
    kill(victim.pid, signal.SIGSTOP)
    status = project.wait(lambda s: any(r.state == "hung" for r in s.replicas))
    assert [r.in_rotation for r in project.folder.load().replicas if r.name == victim.name] == [True]
    assert status.phase == "degraded"
    wait_replaced(project, victim.name, 1)
    assert project.ask() == 1.0


def test_overload_ejects_nobody(project):
    """Far more than one replica of 50 ms can take: it is late, and stays."""
    project.release(project.bundle(t0_s=0.05))
    before = project.serving(1, 1)
    with Load(before, "http", 60, workers=40) as load:
        load.wait_for(250)
        seen = [project.target.status() for _ in range(20)]
    assert load.failures == []
    assert {r.pid for s in seen for r in s.replicas} == {before.replicas[0].pid}
    assert {r.state for s in seen for r in s.replicas} == {"ready"}


def test_a_crash_loop_is_told_with_its_reason(project):
    project.release(project.bundle(fail_at_load="crash"))
    status = project.wait(lambda s: s.phase == "failed")
    assert re.search(r"ended while it was loading|Stub process .* is not healthy", status.message)
    assert "next start in" in status.message


def test_the_front_door_comes_back_on_its_port(project):
    project.release(project.bundle())
    url = project.serving(1, 1).url
    door = project.folder.load().door.process
    kill(door)
    assert processes.wait_for(lambda: (d := project.folder.load().door) is not None and d.process != door, WAIT_S)
    assert project.serving(1, 1).url == url
    assert project.ask() == 1.0


@pytest.mark.parametrize("how", ["unreachable", pytest.param("hangs", marks=pytest.mark.full)])
def test_a_front_door_that_cannot_be_told_anything_is_replaced(project, how):
    project.release(project.bundle())
    url = project.serving(1, 1).url
    door = project.folder.load().door.process
    if how == "hangs":
        kill(door, signal.SIGSTOP)
    else:  # by a cleaner of temporary files
        shutil.rmtree(EnvoyDoor(project.folder.door).socket.parent)
    assert processes.wait_for(lambda: (d := project.folder.load().door) is not None and d.process != door, WAIT_S)
    assert project.serving(1, 1).url == url
    assert project.ask() == 1.0
    assert not processes.alive(door)


def test_serving_goes_on_without_a_supervisor_and_the_next_adopts(project):
    release = project.release(project.bundle(), replicas=2)
    before = project.serving(1, 2)
    with Load(before, "http", 30) as load:
        kill_supervisor(project)
        alone = project.target.status()
        assert not alone.alive
        assert alone.revision_serving == 1
        load.wait_for(30)
        project.target.apply(release)
        after = project.serving(1, 2)
        load.wait_for(30)
    assert load.failures == []
    assert {r.pid for r in after.replicas} == {r.pid for r in before.replicas}
    first = project.supervisor()
    project.target._start()  # a second one cannot get the lock, and ends: it would bring back what `down` takes down
    assert processes.wait_for(lambda: supervisors(project) == [first.pid], WAIT_S)
    assert project.supervisor() == first
    assert len(project.processes()) == 2 * 2 + 1  # two servers with a stub each, and the front door


def test_an_adopted_replica_must_answer(project):
    release = project.release(project.bundle(), replicas=2)
    victim = project.serving(1, 2).replicas[0]
    kill_supervisor(project)
    for stub in stubs(victim.pid):
        kill(stub)
    project.target.apply(release)
    wait_replaced(project, victim.name, 2)


def test_a_damaged_record_stops_nobody_who_serves(project):
    release = project.release(project.bundle())
    before = project.serving(1, 1)
    kill_supervisor(project)
    record = next(project.folder.releases.glob("*.json"))
    whole = record.read_text()
    record.chmod(0o600)
    record.write_text(whole[:100])
    with pytest.raises(MachineError) as raised:
        project.target.apply(release)
    assert raised.value.code == "supervisor-failed"
    assert "Release record" in raised.value.why
    assert project.ask() == 1.0
    record.write_text(whole)
    project.target.apply(release)
    assert [r.pid for r in project.serving(1, 1).replicas] == [before.replicas[0].pid]


def kill_at_random_moments(project, rounds, seed):
    """Roll between two contents; the supervisor is killed somewhere in the middle of each roll-out, then `apply` is simply repeated."""
    rng = random.Random(seed)
    contents = [project.bundle(offset=0), project.bundle(offset=100)]
    project.release(contents[0])
    revision = 1
    with Load(project.serving(1, 1), "http", 20) as load:
        for _ in range(rounds):
            revision += 1
            release = project.release(contents[(revision - 1) % 2])
            processes.wait_for(lambda: False, rng.uniform(0.0, 6.0))
            kill_supervisor(project)
            project.target.apply(release)
            project.serving(revision, 1)
            named = {r.name for r in project.folder.load().replicas}
            assert {p.name for p in project.folder.replicas.iterdir()} == named
            assert len(project.processes()) == 2 + 1  # server, stub, front door: no orphan
    assert load.failures == []


def test_kill_of_the_supervisor_at_random_moments(project):
    kill_at_random_moments(project, 3, seed=7)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_kill_of_the_supervisor_at_20_random_moments(project):
    kill_at_random_moments(project, 20, seed=11)


def test_down_after_a_kill_of_everything(project):
    project.release(project.bundle(), replicas=2)
    project.serving(1, 2)
    prefixes = [r.shm_prefix for r in project.folder.load().replicas]
    for process in [project.supervisor(), *project.processes()]:
        kill(process)
    assert any(processes.shared_memory(p) for p in prefixes)
    project.target.down(Quiet())
    assert project.processes() == []
    assert not any(processes.shared_memory(p) for p in prefixes)
    assert list(project.folder.replicas.iterdir()) == []
