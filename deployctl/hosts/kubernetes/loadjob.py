"""The load generator inside a pod: `python3 -m deployctl.hosts.kubernetes.loadjob FOLDER`.

FOLDER holds the request and the example bodies (`core/manifests/bench.py` mounts them). Runs the same generator as on any machine and prints
what it saw as lines that `loadwire.py` reads again. Exit code 0 whenever it could say how it ended.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
import time
from pathlib import Path

from deployctl.adapters.locust import LocustGenerator
from deployctl.core.manifests.bench import BODIES, REQUEST
from deployctl.errors import DeployctlError
from deployctl.hosts.kubernetes import loadwire

_EVERY_S = 2.0


class Lines:
    """A Progress that prints at most one line every two seconds."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def update(self, message: str) -> None:
        """Where the test is."""
        if time.monotonic() - self._last_s >= _EVERY_S:
            self._last_s = time.monotonic()
            print(loadwire.progress_line(message), flush=True)

    step = note = warn = update


def main(folder: Path) -> int:
    """Run the one test and return the exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        bodies = Path(scratch) / "bodies.jsonl"
        bodies.write_bytes(gzip.decompress((folder / BODIES).read_bytes()))
        request = loadwire.read_request((folder / REQUEST).read_text(), bodies)
        try:
            for line in loadwire.result_lines(LocustGenerator(Path(scratch) / "run").run(request, Lines())):
                print(line)
        except DeployctlError as error:
            print(loadwire.error_line(error))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
