"""Pods as real Triton processes behind the real API server: start, probes, logs, port-forward, crash, bad blob, leaving with grace."""

import contextlib
import json
import os
import signal
import urllib.request

import pytest
from kubernetes import client, config
from kubernetes.stream import portforward

pytestmark = [pytest.mark.kube, pytest.mark.triton]


def infer(address, value=1.0, timeout_s=10):
    body = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4}]}).encode()
    with urllib.request.urlopen(f"http://{address}/v2/models/sleeper/infer", body, timeout=timeout_s) as answer:
        return json.loads(answer.read())["outputs"][0]["data"][0]


def times(worker):
    """When each thing first happened to a pod, in seconds after it was bound."""
    found = {}
    for when_s, what in worker.told:
        found.setdefault(what, when_s - worker.told[0][0])
    return found


def test_a_release_serves_tells_and_leaves_with_grace(project, joined):
    project.release(project.plan(project.bundle(offset=1)))
    status = project.wait()
    assert len(status.replicas) == 2
    # Traffic through the Service, as kube-proxy would carry it.
    address = joined.routes.open(project.namespace, "echo", 8000)
    assert {infer(address, value) for value in (1.0, 5.0)} == {2.0, 6.0}
    # Logs through the real API server: the fetcher's last word and Triton's own.
    lines = list(project.target.logs(replica=status.replicas[0].name, since_s=None, follow=False))
    assert any("fetch" in line and "deployctl-fetch: verified" in line for line in lines)
    assert any("triton" in line and "Started HTTPService" in line for line in lines)
    # An inference from outside, by port-forward through the real API server.
    assert forwarded(project, status.replicas[0].name) == 200
    # Leaving: out of the endpoints at once, SIGTERM only after the hook, never SIGKILL.
    leaver = joined.worker(project.namespace, status.replicas[0].name)
    project.plane.request("DELETE", leaver.path)
    project.plane.until(lambda: leaver.address not in joined.routes.ready(project.namespace, "echo"), "one endpoint fewer")
    assert infer(f"{leaver.address}:8000") == 2.0  # it goes on serving those who have not heard yet
    leaver.join(60)
    seen = times(leaver)
    hook_s = float(leaver.pod["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert seen["SIGTERM"] - seen["leaving"] >= hook_s
    assert "SIGKILL" not in seen
    assert len(project.wait().replicas) == 2


def forwarded(project, pod):
    """The status of an inference through `portforward` of the kubernetes client."""
    with config.new_client_from_config(str(project.plane.kubeconfig), context="admin") as api:
        forward = portforward(client.CoreV1Api(api).connect_get_namespaced_pod_portforward, pod, project.namespace, ports="8000")
        body = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
        with contextlib.closing(forward.socket(8000)) as stream:
            stream.settimeout(20)
            head = f"POST /v2/models/sleeper/infer HTTP/1.1\r\nHost: pod\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            stream.sendall(head.encode() + body)
            answer = stream.recv(65536)
        assert forward.error(8000) is None
        forward.close()
    return int(answer.split()[1])


def test_a_crash_is_seen_and_mended_as_a_kubelet_would(project, joined):
    project.release(project.plan(project.bundle(), replicas=1))
    project.wait()
    worker = joined.workers(project.namespace)[0]
    os.killpg(worker.mains[0].running.process.pid, signal.SIGKILL)

    def crashed():
        status = project.pods()[0]["status"]["containerStatuses"][0]
        return status if status["restartCount"] else None

    status = project.plane.until(crashed, "a counted restart")
    assert (status["state"]["waiting"]["reason"], status["lastState"]["terminated"]["exitCode"], status["ready"]) == ("CrashLoopBackOff", 137, False)
    assert project.wait().replicas[0].restarts == 1
    assert infer(joined.routes.open(project.namespace, "echo", 8000)) == 1.0


def test_a_damaged_blob_fails_the_start_with_its_cause(project):
    bundle = project.bundle()
    file = next(f for f in bundle.files if f.path.endswith("model.py"))
    path = project.blobs.path(file.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"#")
    project.release(project.plan(bundle, replicas=1))
    status = project.wait("failed")
    assert f"bytes of {file.digest}" in status.message
