"""A stand-in kubelet: pods that are bound to its node run as real processes, with a kubelet's probes, restarts, hooks and grace.

What enters are pods from the API server's watch; what leaves are their processes and their status. `joined_pod.py` says what of a container
is not real. Not done: events, resource limits, image pulls, sidecars, probes other than exec. The back-off after a crash is a kubelet's (10 s,
doubled), the grace too.
"""

import functools
import json
import threading
import time

from joined_pod import PodFolder, now, stamp

BACKOFF_S, BACKOFF_MAX_S = 10.0, 300.0
LEAST_GRACE_S = 2.0
HEARTBEAT_S = 5.0
MERGE = "application/strategic-merge-patch+json"


class Container:
    """What a kubelet knows of one container."""

    def __init__(self, spec):
        self.spec, self.name = spec, spec["name"]
        self.running, self.last, self.restarts = None, None, 0
        self.started = self.ready = False
        self.waiting = {"reason": "PodInitializing"}

    def status(self):
        if self.running is not None:
            state = {"running": {"startedAt": stamp(self.running.started)}}
        elif self.waiting is None:
            state = {"terminated": self.last}
        else:
            state = {"waiting": self.waiting}
        image = self.spec["image"]
        found = {
            "name": self.name,
            "image": image,
            "imageID": image,
            "restartCount": self.restarts,
            "ready": self.ready,
            "started": self.started,
            "state": state,
        }
        if self.last is not None and "terminated" not in state:
            found["lastState"] = {"terminated": self.last}
        return found

    def ended(self, code):
        """Remember how a run ended."""
        why = "Completed" if code == 0 else "Error"
        self.last = {"exitCode": code, "reason": why, "startedAt": stamp(self.running.started), "finishedAt": stamp(now())}
        if code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            self.last["message"] = self.running.log.message()
        self.running.kill()  # whatever its first process left behind
        self.running, self.ready, self.started = None, False, False


class PodWorker:
    """One pod from its binding to its end."""

    def __init__(self, kubelet, pod):
        self.kubelet, self.plane = kubelet, kubelet.plane
        self.pod, self.uid = pod, pod["metadata"]["uid"]
        self.path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        self.ip, self.address = kubelet.new_address()
        self.place = PodFolder(pod, kubelet.folder / self.uid, self.address, kubelet.environment, kubelet.translate)
        self.inits = [Container(c) for c in pod["spec"].get("initContainers", [])]
        self.mains = [Container(c) for c in pod["spec"]["containers"]]
        self.leaving, self.vanished, self.lost = threading.Event(), threading.Event(), threading.Event()
        self.grace_s = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        self.phase, self.initialised, self.told = "Pending", False, []  # `told`: (when, what) for the tests
        self._lock, self._since = threading.Lock(), {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.start, self.join = self._thread.start, self._thread.join

    # What the API server says.
    def leave(self, pod):
        """The pod got a deletion time."""
        self.grace_s = float(pod["metadata"].get("deletionGracePeriodSeconds", self.grace_s))
        self.leaving.set()

    def vanish(self):
        """The pod is gone from the API server: end at once."""
        self.vanished.set()
        self.leaving.set()

    def lose(self):
        """The machine died: everything ends without a word."""
        self.lost.set()
        self.vanish()
        for container in self.inits + self.mains:
            if container.running is not None:
                container.running.kill()

    # Its life.
    def _run(self):
        self.mark("bound")
        try:
            if self._mounted() and all(self._initialised(c) for c in self.inits):
                self.initialised, self.phase = True, "Running"
                workers = [threading.Thread(target=self._keep, args=(c,), daemon=True) for c in self.mains]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
            self.leaving.wait()
            self._end()
        finally:
            if not self.lost.is_set():
                self.place.clear()
            self.kubelet.forget(self)

    def mark(self, what):
        self.told.append((time.monotonic(), what))

    def _mounted(self):
        read = functools.partial(_read, self.plane, self.pod["metadata"]["namespace"])
        while missing := self.place.mount(read):
            # A volume that is not there keeps everything waiting (the event FailedMount says why); an env that is not there is an error.
            why = {"reason": "CreateContainerConfigError", "message": missing} if missing.startswith("secret") else {"reason": "ContainerCreating"}
            for container in self.inits + self.mains:
                container.waiting = why
            self.publish()
            if self.leaving.wait(1.0):
                return False
        return not self.leaving.is_set()

    def _initialised(self, container):
        """Run an init container until it ends well; False if the pod leaves first or may not be tried again."""
        backoff_s = BACKOFF_S
        while not self.leaving.is_set():
            container.running = self.place.start(container.spec)
            self.publish()
            code = self._until_exit(container)
            if code is None:
                return False
            container.ended(code)
            if code == 0:
                container.waiting, container.ready = None, True
                self.publish()
                return True
            if not self._again(container, backoff_s):
                return False
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
        return False

    def _keep(self, container):
        """Run a container until the pod leaves or it may not be started again."""
        backoff_s, policy = BACKOFF_S, self.pod["spec"].get("restartPolicy", "Always")
        while not self.leaving.is_set():
            container.running = self.place.start(container.spec)
            self.mark("started")
            stopped = threading.Event()
            self._probe(container, stopped)
            self.publish()
            code = self._until_exit(container, stopped)
            if code is None:
                return  # the pod leaves: `_end` stops it, and readiness goes on being asked until then
            stopped.set()
            container.ended(code)
            if policy == "Never" or (policy == "OnFailure" and code == 0):
                container.waiting, self.phase = None, "Succeeded" if code == 0 else "Failed"
                self.publish()
                return
            if not self._again(container, backoff_s):
                return
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    def _until_exit(self, container, stopped=None):
        """The exit code, None when the pod leaves first; an unhealthy container is stopped here."""
        while not self.leaving.is_set():
            code = container.running.wait(0.2)
            if code is not None:
                return code
            if stopped is not None and stopped.is_set():  # a probe gave it up
                return self._stop(container, self.grace_s)
        return None

    def _again(self, container, backoff_s):
        """Wait before the next start; False if the pod leaves or is not to be started again."""
        if self.pod["spec"].get("restartPolicy", "Always") == "Never":
            container.waiting, self.phase = None, "Failed"
            self.publish()
            return False
        words = f"back-off {backoff_s:g}s restarting failed container={container.name} pod={self.name}"
        container.waiting = {"reason": "CrashLoopBackOff", "message": words}
        container.restarts += 1
        self.publish()
        return not self.leaving.wait(backoff_s * self.kubelet.backoff_ratio)

    # Probes.
    def _probe(self, container, stopped):
        names = ("startupProbe", "readinessProbe", "livenessProbe")
        startup, readiness, liveness = (container.spec.get(n) for n in names)
        container.started, container.ready = startup is None, startup is None and readiness is None

        def begun():
            container.started = True
            container.ready = readiness is None
            self.publish()
            if readiness:
                self._ask(container, readiness, stopped, functools.partial(self._set_ready, container), begin=False)
            if liveness:
                self._ask(container, liveness, stopped, lambda good: None if good or self.leaving.is_set() else self._give_up(stopped, "live"))

        def first(good):
            if good and not container.started:
                begun()
            elif not good:
                self._give_up(stopped, "start")

        if startup:
            self._ask(container, startup, stopped, first, begin=False, once=True)
        else:
            begun()

    def _give_up(self, stopped, mode):
        self.mark(f"{mode} probe failed")
        stopped.set()

    def _set_ready(self, container, good):
        if container.ready != good:
            container.ready = good
            self.mark("ready" if good else "not ready")
            self.publish()

    def _ask(self, container, probe, stopped, tell, *, begin=True, once=False):
        """Ask in a thread of its own; `tell` hears every change of the answer. `begin` is what counts before the first."""

        def loop():
            failures, state, wait_s = 0, begin, float(probe.get("initialDelaySeconds", 0))
            while not stopped.wait(wait_s) and container.running is not None and not (once and self.leaving.is_set()):
                wait_s = float(probe.get("periodSeconds", 10))
                begun_s = time.monotonic()
                code, _ = self.place.execute(container.spec, probe["exec"]["command"], float(probe.get("timeoutSeconds", 1)))
                wait_s = max(0.0, wait_s - (time.monotonic() - begun_s))
                failures = 0 if code == 0 else failures + 1
                if code == 0 and not state:
                    state = True
                    tell(True)
                    if once:
                        return
                elif failures >= probe.get("failureThreshold", 3) and (state or once):
                    state = False
                    tell(False)

        threading.Thread(target=loop, daemon=True).start()

    # The end.
    def _end(self):
        """Hooks, SIGTERM, grace, SIGKILL, then the last status and the confirmation."""
        grace_s = 0.0 if self.vanished.is_set() else self.grace_s
        self.mark("leaving")
        for container in [c for c in self.inits + self.mains if c.running is not None]:
            code = self._stop(container, grace_s)
            container.ended(code)
            container.waiting = None
        if self.lost.is_set():
            return
        codes = [(c.last or {}).get("exitCode", 0) for c in self.mains]
        self.phase = self.phase if self.phase in ("Succeeded", "Failed") else ("Failed" if any(codes) else "Succeeded")
        if not self.vanished.is_set():
            self.publish()
            body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
            self.plane.request("DELETE", self.path, body)
        self.mark("gone")

    def _stop(self, container, grace_s):
        """preStop, SIGTERM and, when the grace is over, SIGKILL; the exit code."""
        end_s = time.monotonic() + grace_s
        hook = container.spec.get("lifecycle", {}).get("preStop", {}).get("exec")
        if hook and grace_s:
            self._hook(container, hook["command"], grace_s)
        self.mark("SIGTERM")
        container.running.terminate()
        end_s = max(end_s, time.monotonic() + LEAST_GRACE_S)
        while (code := container.running.wait(0.1)) is None and time.monotonic() < end_s and not self.lost.is_set():
            pass
        if code is None:
            self.mark("SIGKILL")
            container.running.kill()
            code = 137
        return code

    def _hook(self, container, command, grace_s):
        """A preStop hook; a pod that vanishes meanwhile does not wait for it."""
        done = threading.Event()

        def run():
            self.place.execute(container.spec, command, grace_s)
            done.set()

        threading.Thread(target=run, daemon=True).start()
        while not done.wait(0.2) and not self.vanished.is_set():
            pass

    # Status.
    @property
    def name(self):
        return self.pod["metadata"]["name"]

    def publish(self):
        """Tell the API server how the pod is."""
        with self._lock:
            if self.lost.is_set() or self.vanished.is_set():
                return
            ready = self.phase == "Running" and all(c.ready for c in self.mains)
            facts = {"PodReadyToStartContainers": True, "Initialized": self.initialised, "ContainersReady": ready, "Ready": ready}
            status = {
                "phase": self.phase,
                "hostIP": self.kubelet.address,
                "podIP": self.ip,
                "podIPs": [{"ip": self.ip}],
                "startTime": self._when("start", True),
                "conditions": [self._condition(name, value, ready) for name, value in facts.items()],
                "initContainerStatuses": [c.status() for c in self.inits],
                "containerStatuses": [c.status() for c in self.mains],
            }
            code, _ = self.plane.request("PATCH", f"{self.path}/status", {"metadata": {"uid": self.uid}, "status": status}, content=MERGE)
        if code in (404, 409):
            self.vanish()

    def _condition(self, name, value, ready):
        found = {"type": name, "status": str(value), "lastTransitionTime": self._when(name, value)}
        if not value:
            found["reason"] = "ContainersNotReady" if self.initialised else "ContainersNotInitialized"
        elif name == "Ready" and not ready:
            found["reason"] = "PodCompleted"
        return found

    def _when(self, name, value):
        """Since when a fact is as it is."""
        if self._since.get(name, (None,))[0] != value:
            self._since[name] = (value, stamp(now()))
        return self._since[name][1]


class Kubelet:
    """One node: its object, its heartbeat, and a worker for each pod that is bound to it."""

    def __init__(self, plane, name, folder, number, api_port, *, network, environment, translate, address="127.0.0.1", backoff_ratio=1.0):
        self.plane, self.name, self.folder, self.address = plane, name, folder, address
        self.environment, self.translate, self.backoff_ratio = environment, translate, backoff_ratio
        self._number, self._network, self._api_port = number, network, api_port
        self._workers, self._done, self._lock, self._next = {}, set(), threading.RLock(), 1
        self.stopped = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)

    def register(self, labels, taints):
        """Make the node; the scheduler may use it when this returns."""
        size = {"cpu": "64", "memory": "256Gi", "pods": "200", "nvidia.com/gpu": "8"}
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": f"j{self._number}", **labels}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": labels}, "spec": {"taints": taints}}
        code, text = self.plane.request("POST", "/api/v1/nodes", body)
        assert code == 201, text
        self._size = size
        self.beat()
        threading.Thread(target=self._beat_on, daemon=True).start()

    def beat(self):
        """Say that the node is well: its status and its Lease."""
        moment = stamp(now())
        reasons = {"Ready": ("True", "KubeletReady"), "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
                   "DiskPressure": ("False", "KubeletHasNoDiskPressure"), "PIDPressure": ("False", "KubeletHasSufficientPID")}  # fmt: skip
        conditions = [{"type": t, "status": s, "reason": r, "lastHeartbeatTime": moment} for t, (s, r) in reasons.items()]
        status = {
            "capacity": self._size,
            "allocatable": self._size,
            "addresses": [{"type": "InternalIP", "address": self.address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._api_port}},
            "nodeInfo": {"kubeletVersion": "v1.36.3", "architecture": "amd64", "operatingSystem": "linux", "osImage": "stand-in"},
            "conditions": conditions,
        }
        self.plane.request("PATCH", f"/api/v1/nodes/{self.name}/status", {"status": status}, content=MERGE)
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name}, "spec": spec}
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}?fieldManager=kubelet&force=true"
        self.plane.request("PATCH", path, body, content="application/apply-patch+yaml")

    def _beat_on(self):
        while not self.stopped.wait(HEARTBEAT_S):
            self.beat()

    def new_address(self):
        """(IP in the API, loopback address here) of a new pod: 10.A.node.pod and 127.A.node.pod, never given twice."""
        with self._lock:
            self._next += 1
            tail = f"{self._network}.{self._number * 16 + self._next // 250}.{self._next % 250 + 1}"
        return f"10.{tail}", f"127.{tail}"

    def heard(self, kind, pod):
        """One event of the API server's watch."""
        if self.stopped.is_set() or pod["spec"].get("nodeName") != self.name:
            return
        uid = pod["metadata"]["uid"]
        with self._lock:
            worker = self._workers.get(uid)
            if worker is None:
                if kind == "DELETED" or uid in self._done or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
                    return
                worker = self._workers[uid] = PodWorker(self, pod)
                worker.start()
        if kind == "DELETED":
            worker.vanish()
        elif "deletionTimestamp" in pod["metadata"]:
            worker.leave(pod)

    def gone(self, uids):
        """After a new list: what is not in it was deleted unseen."""
        for worker in self.workers():
            if worker.uid not in uids:
                worker.vanish()

    def forget(self, worker):
        with self._lock:
            self._done.add(worker.uid)
            self._workers.pop(worker.uid, None)

    def workers(self):
        with self._lock:
            return list(self._workers.values())

    def worker(self, namespace, name):
        """The worker of a pod, None where it does not run here."""
        return next((w for w in self.workers() if w.pod["metadata"]["namespace"] == namespace and w.name == name), None)

    def die(self):
        """The machine is gone from one moment to the next: no signal, no status, no heartbeat."""
        self.stopped.set()
        workers = self.workers()
        for container in (c for w in workers for c in w.inits + w.mains):
            running = container.running
            if running is not None:
                running.strike()
        for worker in workers:
            worker.lose()

    def stop(self):
        """End everything; for the end of the tests."""
        self.die()
        for worker in self.workers():
            worker.join(10)
            worker.place.clear()


def _read(plane, namespace, kind, name):
    code, text = plane.request("GET", f"/api/v1/namespaces/{namespace}/{kind}/{name}")
    return json.loads(text) if code == 200 else None
