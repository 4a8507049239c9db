"""One real Triton with a model that sleeps, and what reads the generator's files, for all load tests here."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from deployctl import share
from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.locust import LocustGenerator
from deployctl.adapters.repository import TritonRepository
from deployctl.adapters.triton import TritonLauncher
from deployctl.testing.builders import sleep_bundle

sys.path.insert(0, str(share.folder("loadtests").parent))  # so that `loadtests` can be imported, as its own entry points do
SERVICE_S = 0.02


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server whose `sleeper` takes 20 ms, one row at a time; an input that begins with 13 is answered with an error."""
    root = tmp_path_factory.mktemp("load")
    blobs = FileBlobStore(root / "blobs")
    bundle = sleep_bundle(blobs, FileBundleStore(blobs, root / "bundles"), SERVICE_S, 0.0, max_batch=1, parameters={"error_on": "13"})
    TritonRepository(blobs).build(bundle, root / "repo")
    with TritonLauncher(root / "triton").start(root / "repo") as running:
        yield running


@pytest.fixture
def generator(tmp_path):
    return LocustGenerator(tmp_path / "scratch")


@pytest.fixture
def bodies(tmp_path):
    def write(*firsts: float, sizes: tuple[int, ...] = ()) -> Path:
        path = tmp_path / "bodies.jsonl"
        lines = [
            {"size": size, "inputs": {"INPUT0": {"dtype": "FP32", "shape": [1, 4], "data": [first] * 4}}}
            for first, size in zip(firsts, sizes or (1,) * len(firsts), strict=True)
        ]
        path.write_text("\n".join(map(json.dumps, lines)) + "\n")
        return path

    return write


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
