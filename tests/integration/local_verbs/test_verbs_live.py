"""The verbs that people live with, as the real command line on real Triton replicas."""

import json
import random
import re
import socket
import subprocess
import sys
import time

import pytest
from verbs_kit import Load, Ran, kill_group

from deployctl.adapters import processes

pytestmark = pytest.mark.triton


@pytest.mark.timeout(280)
def test_a_day_with_a_service(live):
    """plan, up, call, status, no-op, scale, second release, rollback, hold, allow: in the order in which people meet them."""
    planned = live.run("plan", "-o", "json").data
    assert planned["schema_version"] == 1 and not planned["proven"] and planned["plan"]["replicas"] == 1
    assert live.run("status", ok=(6,)).out.startswith("sleeper in local: STOPPED")

    first = live.run("up", "--yes")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", first.out)  # the URL and nothing else
    assert "p99 unknown on cpu-" in first.err and "3 requests of the sample answered" in first.err

    again = live.start("up", "--yes")  # the installed command, once: stdout is the URL there too
    again = Ran(0, *again.communicate(timeout=60))
    assert again.out == first.out and "already serves" in again.err and live.revisions() == [(1, "up")]

    status = live.run("status", "-o", "json").data
    assert (status["health"], status["revision_serving"], status["variant"]) == ("healthy", 1, "as-is")
    assert [r["state"] for r in status["replicas"]] == ["ready"] and status["replicas"][0]["reason"]

    answer = live.run("call", "--data", '{"INPUT0": [7, 8, 9, 10]}', "-o", "json").data
    assert answer["outputs"] == {"OUTPUT0": [[7.0, 8.0, 9.0, 10.0]]} and answer["measured_at"] == "client"
    assert "OUTPUT0  [1, 4]  1 2 3 4" in live.run("call").out
    snippet = live.run("call", "--snippet", "python").out
    told = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, check=True).stdout
    assert told == "OUTPUT0 [1, 4] [1.0, 2.0, 3.0, 4.0]\n"
    curl = live.run("call", "--snippet", "curl").out
    told = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout
    assert json.loads(told)["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]

    assert live.run("scale", "2", "--reason", "sale").out == "2 replicas ready, bounds 2, revision 2\n"
    kept = live.run("up", "--yes")
    assert "set by hand to 2 (sale)" in live.run("plan").out and "already serves" in kept.err
    assert live.run("scale", "--reset").out.startswith("1 replica ready")

    live.model(0.006)
    assert live.run("diff", ok=(1,)).out.startswith("revision 3 -> what up would do: 1 change")
    live.run("up", "--yes")
    assert live.run("diff", ok=(0,)).out.startswith("revision 4 -> what up would do: no changes")
    assert "bundle" in live.run("diff", "3", "4", ok=(1,)).out

    back = live.run("rollback", "--yes", "--reason", "too slow")
    assert back.out.startswith("revision 5 serves what revision 3 served")
    refused = live.run("up", "--yes", ok=(5,))
    assert "release-on-hold" in refused.err and len(live.revisions()) == 5
    held = [r for r in live.run("history", "-o", "json").data["items"] if r["held"]]
    assert [r["revision"] for r in held] == [4]
    live.run("release", "allow", held[0]["content"][:19])
    live.run("up", "--yes")
    assert live.revisions()[-1] == (6, "up")

    sources = {line.split("]")[0] for line in live.run("logs").out.splitlines()}
    assert "[supervisor" in sources and any(s.startswith("[replica-") for s in sources)
    only = live.run("logs", "--component", "supervisor").out.splitlines()
    assert only and all(line.startswith("[supervisor]") for line in only)


def roll_under_load(live, protocol, count, rate_rps):
    """A new release and its rollback while an open loop sends; what it lost."""
    live.model(round(random.uniform(0.005, 0.009), 6))
    live.run("up", "--yes")
    before = live.status()
    load = Load(protocol, before["url" if protocol == "http" else "grpc_url"], count=count, rate_rps=rate_rps)
    live.model(round(random.uniform(0.005, 0.009), 6))
    live.run("up", "--yes")
    live.run("rollback", "--yes")
    after = live.status()
    assert (after["url"], after["revision_serving"]) == (before["url"], before["revision_serving"] + 2)
    return load.join()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_roll_out_and_rollback_lose_nothing(live, protocol):
    done, failures = roll_under_load(live, protocol, 300, 40.0)
    assert failures == [] and done >= 300


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_roll_out_and_rollback_lose_none_of_5000(live, protocol):
    done, failures = roll_under_load(live, protocol, 5000, 100.0)
    assert failures == [] and done >= 5000


def test_a_release_that_does_not_start_goes_back_and_a_mended_one_goes_on(live):
    live.model(0.0101)
    live.run("up", "--yes")
    number = live.revisions()[-1][0]
    live.model(0.0102)
    live.run("package")
    live.marker.touch()
    failed = live.run("up", "--yes", ok=(10,))
    live.marker.unlink()
    first = failed.err[failed.err.index("error:") :].splitlines()[:5]
    assert f"revision {number + 1} does not start; revision {number} keeps serving" in first[0] and "libfoo.so" in first[1]
    assert live.revisions()[-1] == (number + 2, "rollback") and live.run("call", "-o", "json").data["outputs"]
    live.run("up", "--yes")
    assert live.revisions()[-1] == (number + 3, "up") and live.status()["revision_serving"] == number + 3


@pytest.mark.timeout(280)
def test_a_scale_up_that_cannot_start_ends_by_itself_and_says_why(live):
    """The extra replica fails each time; nobody waits for the timeout, and one replica is what is wanted again."""
    live.run("scale", "--reset", ok=None)
    live.run("up", "--yes")
    number = live.revisions()[-1][0]
    live.marker.touch()
    failed = live.run("scale", "2", ok=(10,))
    live.marker.unlink()
    assert f"revision {number} keeps serving" in failed.err and "libfoo.so" in failed.err
    assert live.revisions()[-1] == (number + 2, "rollback")
    assert processes.wait_for(lambda: live.status()["health"] == "healthy" and live.status()["replicas_wanted"] == 1, 60.0), live.status()
    assert live.run("scale", "2").out.startswith("2 replicas ready")
    live.run("scale", "--reset")


def test_a_port_that_somebody_has_is_told_before_anything_is_recorded(fresh):
    """Also where a service runs already and is to move: it goes on where it is."""
    yaml = fresh.root / "deploy.yaml"
    before = yaml.read_text()
    fresh.run("package")
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        yaml.write_text(before.replace("{http: 0,", f"{{http: {somebody.getsockname()[1]},"))
        refused = fresh.run("up", "--yes", ok=(1,))
        assert "port-taken" in refused.err and str(somebody.getsockname()[1]) in refused.err and fresh.revisions() == []
        yaml.write_text(before)
        fresh.run("up", "--yes")
        yaml.write_text(before.replace("{http: 0,", f"{{http: {somebody.getsockname()[1]},"))
        assert "port-taken" in fresh.run("up", "--yes", ok=(1,)).err
        assert fresh.revisions() == [(1, "up")] and fresh.status()["health"] == "healthy"
    moved = fresh.run("up", "--yes")  # the port is free now
    assert moved.out.strip().endswith(f":{yaml.read_text().split('http: ')[1].split(',')[0]}") and fresh.status()["health"] == "healthy"


def test_a_first_release_that_does_not_start_names_its_cause(fresh):
    fresh.run("package")
    fresh.marker.touch()
    failed = fresh.run("up", "--yes", ok=(4,))
    assert failed.out == "" and "nothing serves" in failed.err and "libfoo.so" in failed.err
    fresh.run("status", ok=(4,))
    fresh.marker.unlink()
    assert fresh.run("up", "--yes").out.startswith("http://")


def test_of_two_at_once_one_wins_and_the_other_is_told(fresh):
    fresh.run("package")
    racers = [fresh.start("up", "--yes") for _ in range(2)]
    ends = [(*child.communicate(timeout=120), child.returncode) for child in racers]
    codes = sorted(code for _, _, code in ends)
    assert codes in ([0, 0], [0, 7]), ends
    assert fresh.revisions() == [(1, "up")]
    for _, err, code in ends:
        if code == 7:
            assert "plan-stale" in err and re.search(r"revision 1 was made \d+ s ago by `deployctl up` of .*pid \d+", err)


def killed_up(project, delay_s):
    """`up` killed after `delay_s`, then the same command; what serves is what was asked for, and once."""
    child = project.start("up", "--yes")
    time.sleep(delay_s)
    kill_group(child)
    before = len(project.revisions())
    project.run("up", "--yes")
    status = project.status()
    assert status["health"] == "healthy" and status["revision_serving"] == status["revision_wanted"]
    assert project.run("diff", ok=(0,)).out.splitlines()[0].endswith("no changes")
    assert len(project.revisions()) - before in (0, 1)


@pytest.mark.timeout(280)
def test_killed_at_any_moment_the_same_command_completes(live):
    chance = random.Random(5)
    for number in range(3):
        live.model(round(0.011 + number / 1000, 6))
        killed_up(live, chance.uniform(0.3, 4.5))


@pytest.mark.full
@pytest.mark.timeout(900)
def test_killed_at_twenty_moments_the_same_command_completes(live):
    chance = random.Random(20)
    for number in range(20):
        live.model(round(0.02 + number / 10_000, 6))
        killed_up(live, chance.uniform(0.2, 6.0))


@pytest.mark.timeout(280)
def test_bounds_follow_load_and_an_end_gives_way(live):
    """`scale 1..2` lets the policy choose; a hand-set number with an end goes back by itself."""
    live.model(0.05)
    live.run("up", "--yes")
    live.run("scale", "1..2")
    load = Load("http", live.status()["url"], count=1, rate_rps=80.0, workers=32)
    assert processes.wait_for(lambda: live.status()["replicas_ready"] == 2, 40.0), live.status()["policy_says"]
    load.join()
    assert processes.wait_for(lambda: live.status()["replicas_wanted"] == 1, 40.0), live.status()["policy_says"]
    live.run("scale", "2", "--for", "12s")
    newest = live.run("history", "-o", "json").data["items"][-1]
    assert (newest["action"], newest["min_replicas"], newest["replicas"]) == ("scale", 2, 2)
    assert processes.wait_for(lambda: live.status()["replicas_wanted"] == live.status()["replicas_min"] == 1, 40.0)
    assert live.revisions()[-1][0] == newest["revision"]  # nobody had to do anything
    live.run("scale", "--reset")


def test_a_plan_file_is_done_exactly_or_is_stale(fresh):
    fresh.run("package")
    path = str(fresh.root / "plan.json")
    fresh.run("plan", "--out", path)
    assert fresh.run("up", path, "--yes").out.startswith("http://")
    stale = fresh.run("up", path, "--yes", ok=(7,))
    assert "newest release was none" in stale.err and fresh.revisions() == [(1, "up")]


def test_down_wants_the_name_leaves_nothing_and_keeps_the_records(live):
    live.run("up", "--yes")
    assert live.processes()
    assert "not-confirmed" in live.run("down", ok=(2,)).err and "not the service's name" in live.run("down", "--confirm", "other", ok=(2,)).err
    assert live.status()["health"] == "healthy"
    live.run("down", "--confirm", "sleeper")
    assert live.processes() == [] and live.revisions()
    assert "nothing was running" in live.run("down", "--yes").out


def test_words_that_do_not_fit_are_usage_errors_with_the_right_form(fresh):
    for words in (["scale"], ["scale", "0"], ["scale", "4..1"], ["scale", "3", "--reset"], ["scale", "3", "--for", "soon"], ["up", "missing.json"]):
        ran = fresh.run(*words, ok=(2,))
        assert "Traceback" not in ran.err and ran.err.strip()
    for words, code in ((["call"], 6), (["rollback", "--yes"], 6), (["scale", "2"], 6), (["diff"], 6), (["release", "allow", "ff"], 6)):
        ran = fresh.run(*words, ok=(code,))
        assert "hint:" in ran.err and "Traceback" not in ran.err
