"""One pod's containers as processes of this machine: volumes are folders, the pod's IP is a loopback address, its scripts are the real ones.

What enters is a pod as the API server has it; what leaves are processes, their output, and how they ended. What is not as in a container:
no image, no user 1000, no read-only root, no resource limit, and /dev/shm is the machine's. Knows nothing of status and probes.
"""

import base64
import contextlib
import datetime
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from deployctl.adapters.triton.install import Installation

MESSAGE_BYTES = 2048  # what FallbackToLogsOnError keeps of a log
MESSAGE_LINES = 80


def now():
    return datetime.datetime.now(datetime.UTC)


def stamp(moment):
    """A time as the API writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Log:
    """A container's output, each line with the time at which it came, as a container runtime keeps it."""

    def __init__(self, path):
        self.path = path
        self._tail = []

    def drain(self, pipe):
        """Copy a pipe until it ends; in a thread of its own."""
        with pipe, self.path.open("ab", buffering=0) as file:
            for line in pipe:
                file.write(f"{now().isoformat().replace('+00:00', 'Z')} ".encode() + line.rstrip(b"\n") + b"\n")
                self._tail = [*self._tail[-MESSAGE_LINES + 1 :], line]

    def message(self):
        """The end of the output of the last run."""
        return b"".join(self._tail)[-MESSAGE_BYTES:].decode(errors="replace")

    def restart(self):
        self._tail = []


class Running:
    """One start of a container."""

    def __init__(self, process, log):
        self.process, self.log, self.started = process, log, now()
        self._reader = threading.Thread(target=log.drain, args=(process.stdout,), daemon=True)
        self._reader.start()

    def wait(self, timeout_s):
        """The exit code as a container runtime says it (128 + signal), None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(timeout_s)
            return code if code >= 0 else 128 - code
        return None

    def terminate(self):
        """SIGTERM to the container's first process alone, as a runtime sends it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def strike(self):
        """SIGKILL to everything in the container, without waiting."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self):
        """SIGKILL to everything in the container; returns when it is gone."""
        self.strike()
        self.process.wait()
        self._reader.join(5)


class PodFolder:
    """The pod's volumes and containers below one folder of this machine."""

    def __init__(self, pod, folder, address, environment, translate):
        self.pod, self.folder, self.address = pod, folder, address
        self._environment, self._translate, self._secrets = environment, translate, {}
        self._installed = Installation(folder.parent / "triton")
        self._shm = f"p{pod['metadata']['uid'].replace('-', '')[:12]}_"
        self.logs = {}
        folder.mkdir(parents=True)

    def mount(self, read):
        """Make every volume; `read(kind, name)` gives a ConfigMap or Secret, None where it does not exist.

        Returns what is missing, in a kubelet's words, or "".
        """
        for name in {e["valueFrom"]["secretKeyRef"]["name"] for c in self.pod["spec"]["containers"] for e in c.get("env", []) if "valueFrom" in e}:
            self._secrets[name] = read("secrets", name)
            if self._secrets[name] is None:
                return f'secret "{name}" not found'
        for volume in self.pod["spec"].get("volumes", []):
            path = self.folder / "volumes" / volume["name"]
            path.mkdir(parents=True, exist_ok=True)
            if "configMap" not in volume:
                continue
            name = volume["configMap"]["name"]
            item = read("configmaps", name)
            if item is None:
                return f'configmap "{name}" not found'
            for key, text in item.get("data", {}).items():
                # Inside a pod 127.0.0.1 is the pod itself; here that is the pod's own loopback address.
                text = text.replace("127.0.0.1", self.address) if key == "probe.py" else text
                (path / key).write_text(self._translate(text) if key == "request.json" else text)
            for key, text in item.get("binaryData", {}).items():
                (path / key).write_bytes(base64.b64decode(text))
        return ""

    def start(self, container):
        """Start a container's command."""
        words = self.here(container, [*container.get("command", []), *container.get("args", [])])
        if any(word.endswith("/serve.py") for word in words):
            words += [f"--{name}-address={self.address}" for name in ("http", "grpc", "metrics")]
            words += [f"--backend-directory={self._installed.backends()}", f"--backend-config=python,shm-region-prefix-name={self._shm}"]
        log = self.logs.setdefault(container["name"], Log(self.folder / f"{container['name']}.log"))
        log.restart()
        return Running(subprocess.Popen(words, **self._options(container)), log)

    def execute(self, container, command, timeout_s):
        """Run a command in the container: (exit code, output); a command that overruns is killed and counts as 124."""
        process = subprocess.Popen(self.here(container, command), **self._options(container))
        try:
            output = process.communicate(timeout=timeout_s)[0]
            return process.returncode, output.decode(errors="replace")
        except subprocess.TimeoutExpired:
            return 124, f"command timed out after {timeout_s:g} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def here(self, container, words):
        """The container's words with this machine's places."""
        places = {m["mountPath"]: str(self.folder / "volumes" / m["name"]) for m in container.get("volumeMounts", []) if m["mountPath"] != "/dev/shm"}
        if not places:
            return [sys.executable if w == "python3" else w for w in words]
        pattern = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, sorted(places, key=len, reverse=True)))})(?=/|$)")
        return [sys.executable if w == "python3" else pattern.sub(lambda m: places[m[1]], w) for w in words]

    def _options(self, container):
        env = self._installed.environment()
        env["PATH"] = f"{self._installed.home / 'bin'}:{env['PATH']}"
        temporary = next((m["name"] for m in container.get("volumeMounts", []) if m["mountPath"] == "/tmp"), None)
        if temporary:
            env["TMPDIR"] = str(self.folder / "volumes" / temporary)
        env |= self._environment | {
            e["name"]: e["value"] if "value" in e else self._secret(**e["valueFrom"]["secretKeyRef"]) for e in container.get("env", [])
        }
        return {
            "env": env,
            "cwd": self.folder,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,
        }

    def _secret(self, name, key):
        return base64.b64decode(self._secrets[name]["data"][key]).decode()

    def clear(self):
        """Remove what the pod's containers left, their logs too."""
        for region in Path("/dev/shm").glob(f"{self._shm}*"):
            region.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
