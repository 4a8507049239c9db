"""What the command line costs before it does anything: `make bench-cli`.

`deployctl --help` against a click program that does nothing, in pairs, so that a busy machine slows both alike; CPU seconds of
the child, not wall time. Then the modules that `--help` loads. Then a no-op `up`, where `make demo` left a service running.
Last lines: BENCH <name> <value> <unit> goal <goal> ok|short|noisy.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEPLOYCTL = Path(sys.executable).with_name("deployctl")
PAIRS = 40
NOOPS = 5
HEAVY = {
    "cloud": ["boto3", "botocore", "kubernetes", "pulumi"],
    "models": ["onnx", "onnxruntime", "torch", "transformers"],
    "numbers": ["numba", "numpy", "scipy"],
    "requests": ["gevent", "grpc", "locust", "tritonclient"],
    "files and screens": ["pydantic", "rich", "ruamel"],
}
BARE = '''\
import click

@click.group()
@click.version_option("0")
def main():
    """Nothing."""

@main.command()
def nothing():
    """Nothing."""

if __name__ == "__main__":
    main()
'''


def cpu_s(command: list[str]) -> float:
    """User and system seconds of one run."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def word(value: float, low: float, high: float, goal: float) -> str:
    """The word of a result: ok or short, noisy where the repeats fall on both sides of the goal."""
    if low <= goal < high:
        return "noisy"
    return "ok" if value <= goal else "short"


def help_against_bare() -> str:
    """Ratio of CPU seconds, median over pairs, with quartiles."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        commands = [[str(DEPLOYCTL), "--help"], [sys.executable, str(bare), "--help"]]
        for command in commands:
            cpu_s(command)  # byte code and page cache
        pairs = [(cpu_s(commands[0]), cpu_s(commands[1])) for _ in range(PAIRS)]
    ratios = [ours / theirs for ours, theirs in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    ours, theirs = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    print(
        f"--help: {ours * 1000:.0f} ms CPU, bare click {theirs * 1000:.0f} ms; ratio quartiles {low:.2f} {middle:.2f} {high:.2f} over {PAIRS} pairs"
    )
    return f"BENCH cli-help-cpu {middle:.2f} x goal 1.3 {word(middle, low, high, 1.3)}"


def heavy_modules() -> str:
    """Which of the heavy packages `--help` loads."""
    heavy = [name for names in HEAVY.values() for name in names]
    code = f"import sys\nfrom deployctl.cli.main import run\nrun(['--help'])\nprint([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stderr.strip().splitlines()[-1].replace("'", '"'))
    print(f"heavy modules loaded by --help: {', '.join(loaded) or 'none'}")
    return f"BENCH cli-help-heavy-modules {len(loaded)} modules goal 0 {'short' if loaded else 'ok'}"


def noop_up() -> str | None:
    """Wall seconds of an `up` that has nothing to do, median; None where no service runs."""
    project = Path(os.environ.get("PROJECT", ROOT / "demo"))
    if not (project / "deploy.yaml").exists():
        print(f"no-op up: skipped, there is no project in {project.name}/ (make demo makes one; or name one in PROJECT)")
        return None
    status = subprocess.run([DEPLOYCTL, "-C", str(project), "status", "-o", "json"], capture_output=True, text=True, check=False)
    if status.returncode != 0 or not json.loads(status.stdout).get("revision_serving"):
        print(f"no-op up: skipped, nothing is up in {project.name}/")
        return None
    seconds = []
    for _ in range(NOOPS):
        begun = time.monotonic()
        subprocess.run([DEPLOYCTL, "-C", str(project), "up", "--yes"], capture_output=True, check=True)
        seconds.append(time.monotonic() - begun)
    middle = statistics.median(seconds)
    print(f"no-op up: {', '.join(f'{s:.2f}' for s in seconds)} s")
    return f"BENCH cli-noop-up {middle:.2f} s goal 2 {word(middle, min(seconds), max(seconds), 2.0)}"


def main() -> None:
    """All three; the BENCH lines come last."""
    lines = [help_against_bare(), heavy_modules(), noop_up()]
    print("\n".join(line for line in lines if line))


if __name__ == "__main__":
    main()
