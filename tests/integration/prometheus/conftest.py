"""Prometheus and promtool from the machine: skipped visibly where missing, failed where DEPLOYCTL_REQUIRE names prometheus."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployctl.core import collector as collector_config
from deployctl.core.plan import Plan


@dataclass(frozen=True)
class Collector:
    """A running collector: where spans go, and where Prometheus scrapes."""

    otlp: str
    scrape: str


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found:
        return found
    if "prometheus" in os.environ.get("DEPLOYCTL_REQUIRE", "").split(","):
        pytest.fail(f"{name} is not installed, and DEPLOYCTL_REQUIRE names prometheus")
    pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus)")


@pytest.fixture(scope="session")
def promtool() -> str:
    return _tool("promtool")


@pytest.fixture(scope="session")
def prometheus_binary() -> str:
    return _tool("prometheus")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(binary: str, folder: Path, config: str = "{}") -> Iterator[str]:
    """A Prometheus on loopback over the blocks in `folder`; ended by its own process handle."""
    port = free_port()
    (folder / "prometheus.yml").write_text(config)
    words = [binary, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}", "--storage.tsdb.retention.time=50y"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/-/ready", timeout=2).close()
                break
            except (OSError, urllib.error.URLError):
                assert process.poll() is None, (folder / "prometheus.log").read_text()[-2000:]
                time.sleep(0.1)
        else:
            pytest.fail((folder / "prometheus.log").read_text()[-2000:])
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def prometheus_server(prometheus_binary: str):
    """`with prometheus_server(folder) as url:` over the blocks in folder/data."""
    return lambda folder, config="{}": serving(prometheus_binary, folder, config)


@pytest.fixture(scope="session")
def collector_binary() -> str:
    """The OpenTelemetry Collector that collector/build.sh makes (`make test-kube` does)."""
    script = Path(__file__).parent / "collector" / "build.sh"
    path = Path(subprocess.run([script, "--path"], capture_output=True, text=True, check=True).stdout.strip())
    if path.is_file():
        return str(path)
    if "collector" in os.environ.get("DEPLOYCTL_REQUIRE", "").split(","):
        pytest.fail("the collector is not built, and DEPLOYCTL_REQUIRE names it")
    pytest.skip(f"the OpenTelemetry Collector is not built ({script.relative_to(Path.cwd())})")


@pytest.fixture
def collector(collector_binary: str, tmp_path: Path) -> Iterator[Callable[[Plan], Collector]]:
    """`collector(plan)` runs the rendered configuration on loopback; ended by its own process handle."""
    running = []

    def start(plan: Plan, forward: str | None = None) -> Collector:
        ports = (free_port(), free_port(), free_port())
        file = tmp_path / "collector.json"
        file.write_text(json.dumps(collector_config.config(plan, forward=forward, host="127.0.0.1", ports=ports)))
        log = (tmp_path / "collector.log").open("w")
        process = subprocess.Popen([collector_binary, "--config", f"file:{file}"], stdout=log, stderr=log)
        running.append((process, log))
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{ports[2]}/", timeout=2).close()
                return Collector(otlp=f"http://127.0.0.1:{ports[0]}/v1/traces", scrape=f"127.0.0.1:{ports[1]}")
            except OSError:
                assert process.poll() is None, (tmp_path / "collector.log").read_text()[-3000:]
                time.sleep(0.1)
        pytest.fail((tmp_path / "collector.log").read_text()[-3000:])

    yield start
    for process, log in running:
        process.terminate()
        process.wait(30)
        log.close()
