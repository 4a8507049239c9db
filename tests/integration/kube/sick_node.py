"""A node whose kubelet is a stand-in that only says what a test seeds: the status texts of containers that cannot run.

The texts are those of kubelet 1.36 (image manager, container runtime, CrashLoopBackOff); no container exists.
"""

import datetime
import threading

MERGE = "application/merge-patch+json"
POOL = "sick"


def waiting(reason, message="", *, restarts=0, ended=None):
    """One container's status while it waits; `ended` is how it ended before."""
    found = {"state": {"waiting": {"reason": reason, "message": message}}, "restartCount": restarts}
    return found | ({"lastState": {"terminated": ended}} if ended else {})


def ended(code, message="", reason="Error"):
    return {"exitCode": code, "reason": reason, "message": message}


class SickNode:
    """`seed(namespace, container, status)`: from then on each pod of that namespace on this node has that container status."""

    def __init__(self, plane):
        self.plane, self.name = plane, "sick-0"
        self._seeds, self._stop = {}, threading.Event()
        self.seeded = {}

    def start(self):
        labels = {"deployctl/pool": POOL, "kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "z0"}
        taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": labels}, "spec": {"taints": taints}}
        assert self.plane.request("POST", "/api/v1/nodes", body)[0] == 201
        self._beat()
        threading.Thread(target=self._run, daemon=True).start()
        path = f"/api/v1/nodes/{self.name}"
        self.plane.until(lambda: not any("not-ready" in t["key"] for t in self.plane.get(path)["spec"].get("taints", [])), "a schedulable node")
        return self

    def stop(self):
        self._stop.set()
        self.plane.request("DELETE", f"/api/v1/nodes/{self.name}")

    def seed(self, namespace, container, status):
        self._seeds[namespace] = (container, status)

    def _beat(self):
        size = {"cpu": "64", "memory": "256Gi", "pods": "200", "nvidia.com/gpu": "100"}
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now}
        body = {"status": {"capacity": size, "allocatable": size, "conditions": [ready]}}
        self.plane.request("PATCH", f"/api/v1/nodes/{self.name}/status", body, content=MERGE)

    def _run(self):
        beats = 0
        while not self._stop.wait(0.25):
            beats += 1
            if beats % 40 == 0:
                self._beat()
            for pod in (self.plane.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self.name}") or {"items": []})["items"]:
                self._say(pod)

    def _say(self, pod):
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        if "deletionTimestamp" in meta:
            body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
            self.plane.request("DELETE", path, body)
            return
        container, status = self._seeds.get(meta["namespace"], (None, None))
        if container is None or meta["uid"] in self.seeded:
            return
        key = "initContainerStatuses" if container == "fetch" else "containerStatuses"
        row = {"name": container, "image": "seeded", "imageID": "", "ready": False, "restartCount": 0, **status}
        code, text = self.plane.request("PATCH", f"{path}/status", {"status": {"phase": "Pending", key: [row]}}, content=MERGE)
        assert code == 200, text
        self.seeded[meta["uid"]] = True
