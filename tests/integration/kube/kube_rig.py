"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, controller-manager, scheduler, and kwok for kubelets.

The programs come from `controlplane/build.sh`. Everything listens on free loopback ports, writes under one folder, and is
ended by process id. What is not real: kubelets and the data plane (kwok says Running), and there is no kube-proxy.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / "controlplane" / "build.sh"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
ADMIN, PLAIN = "admin-token", "least-token"
GPU_NODES, GPUS_PER_NODE = 4, 8


def built():
    """The folder with the programs, or None where `controlplane/build.sh` has not run."""
    found = Path(subprocess.run([BUILD, "--path"], capture_output=True, text=True, check=True).stdout.strip())
    return found if (found / ".complete").exists() else None


def free_ports(count):
    """Ports that are free now; all held open together so that no two are the same."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class ControlPlane:
    """Started by `start`, ended by `stop`; `kubeconfig` is a file with the contexts `admin` and `least`."""

    def __init__(self, folder, programs, hpa_sync_s=1):
        self.folder, self._bin = folder, programs
        self._processes = {}
        self._hpa_sync_s = hpa_sync_s
        self.kubeconfig = folder / "kubeconfig.json"
        self.ca = folder / "api" / "apiserver.crt"  # the API server makes it, with its own authority behind it
        self.etcd_port, self._peer, self.port, self._cm, self._sched, self._kwok = free_ports(6)
        self.url = f"https://127.0.0.1:{self.port}"

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "tokens.csv").write_text(f"{ADMIN},admin,1,system:masters\n{PLAIN},deployctl-ci,2,\n")
        subprocess.run(["openssl", "genrsa", "-out", self.folder / "sa.key", "2048"], check=True, capture_output=True)
        users = [{"name": n, "user": {"token": t}} for n, t in (("admin", ADMIN), ("least", PLAIN))]
        contexts = [{"name": n, "context": {"cluster": "rig", "user": n}} for n in ("admin", "least")]
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        config = {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "rig", "cluster": cluster}], "users": users, "contexts": contexts}
        self.kubeconfig.write_text(json.dumps({**config, "current-context": "admin"}))
        self._start_etcd()
        self.start_apiserver()
        self._run("kube-controller-manager", *self._client(), "--leader-elect=false", "--bind-address=127.0.0.1", f"--secure-port={self._cm}",
                  f"--cert-dir={self.folder}/cm", f"--service-account-private-key-file={self.folder}/sa.key",
                  f"--horizontal-pod-autoscaler-sync-period={self._hpa_sync_s}s",
                  "--horizontal-pod-autoscaler-initial-readiness-delay=1s")  # fmt: skip
        self._run("kube-scheduler", *self._client(), "--leader-elect=false", "--bind-address=127.0.0.1", f"--secure-port={self._sched}",
                  f"--cert-dir={self.folder}/sched")  # fmt: skip
        # Only the fake nodes: those of `joined_rig.py` have a kubelet of their own.
        self._run("kwok", f"--kubeconfig={self.kubeconfig}", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                  f"--config={self._bin}/stages.yaml", f"--server-address=127.0.0.1:{self._kwok}")  # fmt: skip
        for number in range(GPU_NODES):
            self.add_node(f"gpu-{number}")
        self.until(lambda: self.get("/api/v1/namespaces/default/serviceaccounts/default"), "the default service account")
        self.until(lambda: all(_ready(n) for n in self.get("/api/v1/nodes")["items"]), "ready nodes")
        return self

    def _client(self):
        """Whose API they call, and faster than by default: 20 calls a second and controller would make tests wait, and 2,000 pods take minutes."""
        names = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        return *(f"--{name}={self.kubeconfig}" for name in names), "--kube-api-qps=200", "--kube-api-burst=400"

    def _start_etcd(self):
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self._peer}"
        self._run("etcd", "--data-dir", str(self.folder / "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
                  "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
                  "--unsafe-no-fsync", "--log-level", "warn")  # fmt: skip

    def start_apiserver(self):
        self._run("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self.etcd_port}", f"--cert-dir={self.folder}/api",
                  f"--secure-port={self.port}", "--bind-address=127.0.0.1", f"--service-account-key-file={self.folder}/sa.key",
                  f"--service-account-signing-key-file={self.folder}/sa.key", "--service-account-issuer=https://rig.invalid",
                  f"--token-auth-file={self.folder}/tokens.csv", "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
                  "--endpoint-reconciler-type=none", "--enable-priority-and-fairness=true")  # fmt: skip
        self.until(lambda: self.request("GET", "/readyz") == (200, "ok"), "a ready API server", limit_s=90)

    def add_node(self, name):
        """A fake GPU node with the taint and the label of the pool `gpu-l4`."""
        labels = {
            "deployctl/pool": "gpu-l4",
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": f"z{name[-1]}",
        }
        size = {"cpu": "64", "memory": "256Gi", "pods": "200", "nvidia.com/gpu": str(GPUS_PER_NODE)}
        taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
                "spec": {"taints": taints}, "status": {"capacity": size, "allocatable": size}}  # fmt: skip
        code, text = self.request("POST", "/api/v1/nodes", body)
        assert code == 201, text

    def _run(self, program, *words):
        log = (self.folder / f"{program}.log").open("ab")
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GOMAXPROCS": "2"}
        self._processes[program] = subprocess.Popen(
            ["nice", "-n", "5", self._bin / program, *words],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        log.close()

    def kill(self, program):
        """End one program at once, as a crash would."""
        process = self._processes.pop(program)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self):
        """End everything, clients first; safe to call twice."""
        for program in reversed(PROGRAMS):
            process = self._processes.pop(program, None)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    # A client of the rig's own, so that what is tested is not tested with itself.
    def request(self, method, path, body=None, token=ADMIN, content="application/json"):
        """(status, text) of one call."""
        if not self.ca.exists():
            return 0, "the API server has not made its certificate yet"
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content}
        data = json.dumps(body).encode() if body is not None else None
        call = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(call, timeout=20, context=ssl.create_default_context(cafile=self.ca)) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def get(self, path):
        """The parsed object, or None where there is none."""
        code, text = self.request("GET", path)
        if code == 404:
            return None
        assert code == 200, f"{path}: {code} {text}"
        return json.loads(text)

    def apply(self, path, body, manager="rig", force=True):
        """Server-side apply as somebody else."""
        code, text = self.request("PATCH", f"{path}?fieldManager={manager}&force={str(force).lower()}", body, content="application/apply-patch+yaml")
        assert code in (200, 201), text
        return json.loads(text)

    def namespace(self, prefix="t"):
        """A new namespace that enforces Pod Security `restricted` and warns of what it would refuse."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        level = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        code, text = self.request(
            "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": level}}
        )
        assert code == 201, text
        self.until(lambda: self.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), "its service account")
        return name

    def until(self, check, what, limit_s=60, step_s=0.1):
        """Poll until `check` gives something true; what it gave."""
        end = time.monotonic() + limit_s
        while True:
            try:
                result = check()
            except AssertionError:
                result = None
            if result:
                return result
            dead = [name for name, p in self._processes.items() if p.poll() is not None]
            assert not dead, f"{dead} ended: see {self.folder}"
            assert time.monotonic() < end, f"no {what} within {limit_s} s"
            time.sleep(step_s)


def _ready(node):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", []))
