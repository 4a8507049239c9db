"""The verbs against pods that are real Triton processes: verified from outside by inference, called, logged, rolled back, taken down.

The kubelets, their API and the routing are the stand-ins of joined_rig.py; API server, controllers, scheduler and Triton are real.
"""

import pytest

pytestmark = pytest.mark.kube


def test_up_call_logs_and_rollback_on_real_triton_processes(joined_project, tmp_path):
    project = joined_project
    first = project.up("--timeout", "3min")
    assert "3 requests of the sample answered; revision 1 serves" in first.err, first.err
    answer = project.run("call", "-e", "prod", "--data", '{"INPUT0": [7, 2, 3, 4]}', "-o", "json").data
    assert answer["outputs"]["OUTPUT0"][0][0] == 7.0 and answer["measured_at"] == "client"
    lines = project.run("logs", "-e", "prod").out.splitlines()
    name = project.status()["replicas"][0]["name"]
    assert any(line.startswith(f"[{name} fetch]") for line in lines) and any("Started GRPCInferenceService" in line for line in lines)
    project.model(0.009)
    second = project.up("--timeout", "3min")
    assert "3 requests of the sample answered; revision 2 serves" in second.err
    empty = tmp_path / "empty"
    empty.mkdir()
    back = project.run("rollback", "--context", "admin", "-n", project.namespace, "sleeper", "--yes", "--timeout", "3min", root=empty)
    assert "revision 3 serves what revision 1 served" in back.out and "not verified by a request of the sample" in back.err
    assert project.run("drift", "-e", "prod").code == 0


@pytest.mark.full
def test_down_waits_until_replicas_have_ended_what_they_accepted(joined_project, joined):
    project = joined_project
    project.up("--timeout", "3min")
    assert "stopped" in project.run("down", "-e", "prod", "--yes").out
    assert project.objects() == set() and joined.workers(project.namespace) == []
