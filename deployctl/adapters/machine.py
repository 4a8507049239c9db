"""Facts about this machine: what enters is a question, what leaves is a plain value. Judges nothing; `flows/doctor.py` does."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

_CLUSTER_TIMEOUT_S = 5
_SHARED_MEMORY = Path("/dev/shm")


class ThisMachine:
    """The Machine port on the operating system's own words."""

    def python(self) -> tuple[int, int, int]:
        """Version of the interpreter."""
        return sys.version_info[:3]

    def system(self) -> tuple[str, str]:
        """(operating system, architecture)."""
        return platform.system(), platform.machine()

    def package(self, name: str) -> str | None:
        """Version of an installed distribution; read from its metadata, nothing is imported."""
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    def program(self, name: str) -> str | None:
        """Path of a program, looked for beside the interpreter first."""
        beside = Path(sys.executable).parent / name
        return str(beside) if os.access(beside, os.X_OK) and beside.is_file() else shutil.which(name)

    def triton_parts(self) -> dict[str, str | None]:
        """Where tritonserver and the stub for this interpreter lie in the installed nvidia-pytriton."""
        root = self._pytriton()
        if root is None:
            return {"server": None, "stub": None}
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        server = root / "bin" / "tritonserver"
        stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
        return {"server": str(server) if os.access(server, os.X_OK) else None, "stub": str(stub) if stub.is_file() else None}

    def _pytriton(self) -> Path | None:
        for entry in sys.path:
            root = Path(entry or ".") / "pytriton" / "tritonserver"
            if root.is_dir():
                return root
        return None

    def libpython(self) -> str | None:
        """The interpreter's shared library in its own library folder, or where Debian and Fedora put it."""
        name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
        multiarch = sysconfig.get_config_var("MULTIARCH") or ""
        folders = [sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib", f"/usr/lib/{multiarch}", "/usr/lib64", "/usr/lib"]
        for folder in folders:
            if folder and (Path(folder) / name).is_file():
                return str(Path(folder) / name)
        return None

    def free_disk_bytes(self, path: Path) -> int:
        """Free space for this user."""
        return shutil.disk_usage(_existing(path)).free

    def free_memory_bytes(self) -> int:
        """MemAvailable, or what is left below the control group's limit where that is less."""
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
                break
        else:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = _group_free_bytes()
        return free if limit is None else min(free, limit)

    def shared_memory_bytes(self) -> int | None:
        """Free space of /dev/shm."""
        return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None

    def open_files(self) -> tuple[int, int]:
        """(soft, hard) limit of open files."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    def port_free(self, port: int) -> bool:
        """Whether a server could listen on the loopback port now, on the terms that servers use (address reuse)."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen(1)
            except OSError:
                return False
        return True

    def cluster_problem(self, context: str) -> str | None:
        """Ask the API server's own readiness through kubectl, for at most some seconds."""
        kubectl = self.program("kubectl")
        if kubectl is None:
            return "kubectl is not on PATH"
        command = [kubectl, "--context", context, "get", "--raw", "/readyz", f"--request-timeout={_CLUSTER_TIMEOUT_S}s"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=2 * _CLUSTER_TIMEOUT_S, check=False)
        except (subprocess.TimeoutExpired, OSError) as error:
            return str(error)[:200]
        return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["kubectl failed"])[-1][:200]

    def writable(self, path: Path) -> bool:
        """Whether a file can really be made there: rights alone do not know a read-only file system."""
        try:
            with tempfile.TemporaryFile(dir=_existing(path)):
                return True
        except OSError:
            return False


def _existing(path: Path) -> Path:
    """The path or its nearest parent that exists."""
    for candidate in (path, *path.parents):
        if candidate.is_dir():
            return candidate
    return Path("/")


def _group_free_bytes() -> int | None:
    """What the control group (v2) still allows; None where there is no limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        files = 0
        for line in (folder / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                files = int(line.split()[1])  # the kernel drops these pages when memory is wanted
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used + files)
