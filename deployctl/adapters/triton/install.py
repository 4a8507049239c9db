"""Where the wheel put Triton, and the command line and environment that make it serve from a plain virtual environment.

What enters are ports and folders, what leaves is argv and env. Each setting here was needed on a bare machine: the stub is not where
the server looks, it embeds the Python that is first on PATH, and its libpython comes from the loader's path.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from deployctl.errors import MachineError

_INSTALL = "pip install 'deployctl[local]'"
# The wheel does not say which Triton it carries; the server does at /v2, and the launcher checks this table against it.
WHEEL_TO_TRITON = {"0.7.0": "2.51.0"}
RESTRICTED = "model-repository,model-config,shared-memory,statistics,trace,logging"
SECRET_HEADER = "x-deployctl-admin"
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommand:
    """One tritonserver to start.

    Attributes:
        repository: model repository folder.
        http_port, grpc_port, metrics_port: loopback ports.
        shm_prefix: names its shared memory, so that leftovers can be found.
        explicit: models are loaded through the API (probes); otherwise the repository is read once and never again.
        secret: value of the header that opens the admin API; empty leaves it open (explicit mode only).
        exit_timeout_s: longest wait for requests in flight at SIGTERM.
        trace_rate: trace one request in this many; 0 is off.
        trace_url: OTLP/HTTP address for the spans.
        http_threads: threads that parse HTTP.
    """

    repository: Path
    http_port: int
    grpc_port: int
    metrics_port: int
    shm_prefix: str
    explicit: bool = False
    secret: str = ""
    exit_timeout_s: int = 30
    trace_rate: int = 0
    trace_url: str = ""
    http_threads: int = 4


class Installation:
    """The Triton of this Python environment; `folder` receives the backend links.

    Raises:
        MachineError: not installed (`triton-missing`), numpy 2 (`numpy-too-new`), no stub or libpython for this Python (`python-unfit`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def wheel(self) -> str:
        """Version of the installed wheel."""
        try:
            return metadata.version("nvidia-pytriton")
        except metadata.PackageNotFoundError as error:
            raise MachineError("Triton is not installed in this Python environment", code="triton-missing", hint=_INSTALL) from error

    @cached_property
    def home(self) -> Path:
        """The folder `pytriton/tritonserver` of the wheel."""
        version = self.wheel
        for base in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            home = Path(base) / "pytriton" / "tritonserver"
            if (home / "bin" / "tritonserver").is_file():
                return home
        raise MachineError(f"nvidia-pytriton {version} is installed without its server", code="triton-missing", hint=_INSTALL)

    def version(self) -> str:
        """Version of the server, without a start."""
        known = WHEEL_TO_TRITON.get(self.wheel)
        if known is None:
            raise MachineError(
                f"nvidia-pytriton {self.wheel} is not one that this version knows",
                code="triton-missing",
                hint=_INSTALL,
                why=f"known: {', '.join(WHEEL_TO_TRITON)}",
            )
        return known

    def check(self) -> None:
        """Refuse what would break later and silently."""
        numpy = metadata.version("numpy")
        if int(numpy.split(".")[0]) >= 2:
            raise MachineError(
                f"numpy {numpy} breaks Triton's Python backend without a word",
                code="numpy-too-new",
                hint=_INSTALL + "   (it pins numpy below 2)",
                why="the backend is built against numpy 1: string inputs kill it and float outputs come back empty",
            )
        if not self._stub.is_file():
            raise MachineError(
                f"this Triton has no backend for Python {sys.version_info.major}.{sys.version_info.minor}",
                code="python-unfit",
                hint="use Python 3.11 or 3.12",
            )

    @property
    def _stub(self) -> Path:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return self.home / "python_backend_stubs" / version / "triton_python_backend_stub"

    def backends(self) -> Path:
        """A backend folder of links into the wheel (links, because copies would lose the libraries beside them)."""
        self.check()
        into = self._folder / "backends" / f"{self.wheel}-{sys.version_info.major}.{sys.version_info.minor}"
        python = into / "python"
        python.mkdir(parents=True, exist_ok=True)
        source = self.home / "backends" / "python"
        for target in (source / "libtriton_python.so", source / "triton_python_backend_utils.py", self._stub):
            link = python / target.name
            if not link.is_symlink() or link.readlink() != target:
                fresh = python / f".{target.name}.{os.getpid()}"
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(target)
                fresh.replace(link)
        return into

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """The whole environment of a server: this Python first, one thread a numeric library, no secrets of the caller."""
        env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        env["PATH"] = os.pathsep.join([str(Path(sys.prefix) / "bin"), "/usr/local/bin", "/usr/bin", "/bin"])
        env["LD_LIBRARY_PATH"] = str(self._libpython_folder())
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            env[name] = "1"
        env["TOKENIZERS_PARALLELISM"] = "false"
        return env | (extra or {})

    @staticmethod
    def _libpython_folder() -> Path:
        name = sysconfig.get_config_var("INSTSONAME") or ""
        candidates = [sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib", f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}"]
        for folder in (Path(c) for c in candidates if c):
            if name and ".so" in name and (folder / name).is_file():
                return folder
        raise MachineError(
            "this Python has no shared libpython, which Triton's Python backend needs",
            code="python-unfit",
            hint="use a Python built with --enable-shared, such as the one uv or the distribution installs",
            why=f"{name or 'libpython'} is in none of {', '.join(c for c in candidates if c)}",
        )

    def argv(self, command: ServerCommand) -> list[str]:
        """The command line."""
        if not re.fullmatch(r"[a-z0-9_]+", command.shm_prefix):
            raise ValueError(f"{command.shm_prefix!r} cannot name shared memory")
        arguments = [
            str(self.home / "bin" / "tritonserver"),
            f"--model-repository={command.repository}",
            f"--backend-directory={self.backends()}",
            f"--cache-directory={self.home / 'caches'}",
            f"--backend-config=python,shm-region-prefix-name={command.shm_prefix}",
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            "--metrics-address=127.0.0.1",
            f"--http-port={command.http_port}",
            f"--grpc-port={command.grpc_port}",
            f"--metrics-port={command.metrics_port}",
            f"--http-thread-count={command.http_threads}",
            "--metrics-interval-ms=1000",
            "--allow-gpu-metrics=false",
            "--allow-sagemaker=false",
            "--allow-vertex-ai=false",
            f"--exit-timeout-secs={command.exit_timeout_s}",
            "--log-format=ISO8601",
        ]
        arguments += ["--model-control-mode=explicit", "--load-model=*"] if command.explicit else ["--model-control-mode=none"]
        if command.secret:
            arguments.append(f"--http-restricted-api={RESTRICTED}:{SECRET_HEADER}={command.secret}")
            arguments.append(f"--grpc-restricted-protocol={RESTRICTED}:{SECRET_HEADER}={command.secret}")
        if command.trace_rate > 0:
            arguments += [
                "--trace-config=mode=opentelemetry",
                f"--trace-config=opentelemetry,url={command.trace_url}",
                "--trace-config=opentelemetry,bsp_schedule_delay=500",
                "--trace-config=level=TIMESTAMPS",
                f"--trace-config=rate={command.trace_rate}",
            ]
        return arguments
