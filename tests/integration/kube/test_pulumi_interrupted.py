"""The writer `pulumi` stopped at any moment: the same command completes, nothing is left over, and nobody has to unlock anything."""

import json
import random
import signal
import subprocess
import threading
import time

import kube_rig
import pytest
from pulumi_kit import Killer, engine_or_skip, family, inputs_of, kill_family, stack_for, started, writer

from deployctl.adapters import processes
from deployctl.adapters.pulumi import PulumiEngine
from deployctl.core import manifests
from deployctl.core.decision import ScalingPolicy
from deployctl.errors import LockHeld
from deployctl.flows._gather import Silent

pytestmark = [pytest.mark.kube, pytest.mark.pulumi_engine]
UP = ("up", "-e", "prod", "--yes", "--unverified")
DOWN = ("down", "-e", "prod", "--yes")


@pytest.fixture(autouse=True)
def _engine_is_there():
    engine_or_skip()


def killed_at_each_write(killer, *words):
    """The command killed at its first write; each next one goes over that and is killed at the one after; the last one ends."""
    at, said = 0, []
    while True:
        killed, (_, err) = killer.run(at, *words)
        said.append(err)
        assert killer.project.nothing_left_over(), err
        if not killed:
            assert killer._child.returncode == 0, "\n".join(said)
            return
        at = 1


@pytest.mark.timeout(900)
def test_killed_at_each_write_between_the_object_and_pulumis_note_of_it(pulumi_project, api_proxy):
    project = pulumi_project
    project.write(replicas="..4")
    killer = Killer(api_proxy, project)
    killed_at_each_write(killer, *UP)
    assert project.status()["health"] == "healthy"
    assert "already serves exactly this" in project.up().err
    assert len(killer.killed) >= 6, killer.killed
    killed_at_each_write(killer, *DOWN)
    assert project.objects() == set()
    print(f"{len(killer.killed)} kills: {', '.join(killer.killed)}")
    assert len(killer.killed) >= 12, killer.killed


@pytest.mark.timeout(900)
def test_a_change_and_a_rollback_killed_at_each_write(pulumi_project, api_proxy):
    project = pulumi_project
    project.write(replicas="..4")
    project.up()
    project.model(0.031)
    killer = Killer(api_proxy, project)
    killed_at_each_write(killer, *UP)
    assert project.status()["revision_serving"] == project.revisions()[-1][0]
    killed_at_each_write(killer, "rollback", "1", "-e", "prod", "--yes")
    assert project.status()["health"] == "healthy"
    assert project.run("drift", "-e", "prod").code == 0
    print(f"{len(killer.killed)} kills: {', '.join(killer.killed)}")
    assert len(killer.killed) >= 4, killer.killed


@pytest.mark.timeout(900)
def test_killed_at_random_moments(pulumi_project):
    rng, project, killed = random.Random(5), pulumi_project, 0
    for number in range(8):
        project.model(0.041 + number / 1000)
        child = project.start(*UP)
        try:
            child.wait(rng.uniform(1.5, 6.0))
        except subprocess.TimeoutExpired:
            killed += 1
        kill_family(child.pid)
        child.communicate()
        project.run(*UP)
        assert project.nothing_left_over()
        assert project.status()["revision_serving"] == project.revisions()[-1][0]
    project.run(*DOWN)
    assert project.objects() == set()
    assert killed >= 4


def test_what_a_killed_run_made_and_the_next_release_does_not_want_is_removed(service, engine, tmp_path):
    """The first run makes an autoscaler and dies; the next one has a fixed number, and one that is taken down leaves nothing."""
    ranged = ScalingPolicy(min_replicas=2, max_replicas=5, target=12.5, signal="arrivals_rps")
    packed, made, inputs = inputs_of(service, scaling=ranged)
    own = writer(service, engine, packed, made)
    own.apply(service.release(made), manifests.objects(inputs))
    # As a kill before Pulumi's note leaves it: all objects there, all on our record, none in the state.
    lost = PulumiEngine(tmp_path / "lost", environment={"KUBECONFIG": str(service.plane.kubeconfig)})
    packed, fixed, other = inputs_of(service, b"two")
    own = writer(service, lost, packed, fixed)
    own.apply(service.release(fixed), manifests.objects(other))
    assert service.live("horizontalpodautoscalers", group="/apis/autoscaling/v2") is None
    assert service.live("deployments")["spec"]["replicas"] == 3
    empty = PulumiEngine(tmp_path / "empty", environment={"KUBECONFIG": str(service.plane.kubeconfig)})
    own = writer(service, empty, packed, fixed)
    own.remove_all()
    own.forget()
    service.plane.until(lambda: not service.ours(), "end of every object")


def test_two_runs_at_once_have_one_winner_and_the_other_is_told_who(service, engine, tmp_path):
    _, made, inputs = inputs_of(service)
    stack = stack_for(service, inputs)
    process = started(service.plane.kubeconfig, tmp_path, stack)
    with pytest.raises(LockHeld) as caught:
        engine.up(stack, Silent())
    assert f"pid {process.pid}" in caught.value.message
    assert process.stdout.read().endswith("finished\n")
    assert process.wait() == 0
    service.wait(made)


def test_a_command_that_is_killed_alone_lets_its_run_end_and_the_same_command_waits_for_it(service, engine, tmp_path):
    _, made, inputs = inputs_of(service)
    stack = stack_for(service, inputs)
    process = started(service.plane.kubeconfig, tmp_path, stack)
    process.kill()
    process.communicate()
    assert engine.up(stack, Silent()).outputs["bundle"] == made.bundle
    assert service.wait(made).ready == 3


class Held:
    """The answer to Pulumi's first write is kept back until `let_go`."""

    def __init__(self):
        self.came, self.free = threading.Event(), threading.Event()

    def __call__(self, method, path):
        if "fieldManager=" in path and "fieldManager=deployctl&" not in path and not self.came.is_set():
            self.came.set()
            self.free.wait(120)

    def let_go(self):
        self.free.set()


@pytest.mark.parametrize("times", [1, 2, 3])
def test_interrupts_while_a_step_is_in_hand_end_the_run_and_the_same_command_goes_on(service, engine, tmp_path, api_proxy, times):
    """The API server has done the write and keeps its answer back: nobody waits for it, no process stays, the object is taken over."""
    held = Held()
    config = through(service, tmp_path, api_proxy(after_write=held, bearer=kube_rig.ADMIN).url)
    _, made, inputs = inputs_of(service)
    stack = stack_for(service, inputs)
    process = started(config, tmp_path, stack, first_step=False)
    assert held.came.wait(120)
    below = [i for pid in family(process.pid) if (i := processes.identify(pid))]
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    process.communicate(timeout=60)
    assert process.returncode != 0
    service.plane.until(lambda: not any(processes.alive(i) for i in below), "end of every process of the run")
    held.let_go()
    assert engine.up(stack, Silent()).outputs["bundle"] == made.bundle
    assert service.wait(made).ready == 3
    assert engine.up(stack, Silent()).steps == ()


def test_one_interrupt_ends_after_the_step_and_the_same_command_goes_on(pulumi_project):
    project = pulumi_project
    child = project.start(*UP)
    time.sleep(4)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=120)
    assert child.returncode in (0, 8), err
    if child.returncode == 8:
        assert "run the same command again" in err
    project.up()
    assert project.status()["health"] == "healthy"


def through(service, tmp_path, url):
    """A kubeconfig that reaches the API server through the proxy."""
    config = json.loads(service.plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": url}
    file = tmp_path / "kubeconfig.json"
    file.write_text(json.dumps(config))
    return file
