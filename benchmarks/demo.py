"""The main job on this machine, from a model to a tuned, scaled, rolled-back service: what `make demo` runs.

It types the same commands as a person would, in ./demo, and writes demo/demo.json. Steps that are already done or proven are
not done again: the second run takes seconds. What stays is a running service.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo"
RECORD = DEMO / "demo.json"
DEPLOYCTL = Path(sys.executable).with_name("deployctl")
LOAD_S = "36s"  # 432 requests: enough to bound p99; the default of `loadtest` takes 2,000


class Failed(SystemExit):
    """A step failed; its own message is already on the screen."""


def command(*words: str, ok: tuple[int, ...] = (0,), quiet: bool = False) -> tuple[int, str]:
    """Run one deployctl command in ./demo; talk goes to the screen, the result comes back."""
    if not quiet:
        print(f"\n$ deployctl {' '.join(words)}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [DEPLOYCTL, "-C", str(DEMO), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True, check=False
    )
    if done.returncode not in ok:
        raise Failed(f"demo: `deployctl {' '.join(words)}` ended with {done.returncode}\n{(done.stderr or '')[-2000:]}")
    return done.returncode, done.stdout


def document(*words: str, ok: tuple[int, ...] = (0,), quiet: bool = False) -> Any:
    """Like `command` with `-o json`, parsed."""
    return json.loads(command(*words, "-o", "json", ok=ok, quiet=quiet)[1])


class Steps:
    """Collects name, seconds and result of each step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def run(self, name: str, action: Any) -> Any:
        """Time one step; its result text is what `action` returns first."""
        begun = time.monotonic()
        result, value = action()
        self.rows.append({"name": name, "seconds": round(time.monotonic() - begun, 1), "result": result})
        return value


def init() -> tuple[str, None]:
    if (DEMO / "deploy.yaml").exists():
        return "kept", None
    DEMO.mkdir(exist_ok=True)
    command("init", "--name", "sentence-search", "--yes")
    return "written", None


def compress() -> tuple[str, Any]:
    variants = document("compress")["variants"]
    return f"{len(variants)} variants", variants


def package() -> tuple[str, None]:
    command("package")
    return "proven in a real Triton", None


def tune() -> tuple[str, Any]:
    evidence = document("tune", "--yes")
    return f"{evidence['verdict']['result']}, {evidence['probes']} probes", evidence


def up() -> tuple[str, str]:
    url = command("up", "--yes")[1].strip()
    return url, url


def loadtest() -> tuple[str, Any]:
    report = document("loadtest", "--reuse", "--duration", LOAD_S, ok=(0, 98, 99))
    return report["verdict"]["result"], report


def scale() -> tuple[str, None]:
    command("scale", "2", "--yes", "--reason", "demo")
    command("scale", "--reset", "--yes")
    return "1 -> 2 -> policy", None


def second_release(other: str) -> tuple[str, int]:
    command("up", "--yes", "--variant", other)
    revision = document("status", quiet=True)["revision_serving"]
    return f"revision {revision} serves {other}", revision


def rollback_under_load() -> tuple[str, dict[str, int]]:
    """Roll back while an open-loop load runs, and count what it lost."""
    outcome: dict[str, Any] = {}

    def load() -> None:
        outcome.update(document("loadtest", "--duration", "20s", ok=(0, 98, 99), quiet=True))

    thread = threading.Thread(target=load)
    thread.start()
    time.sleep(4.0)  # the generator starts and warms up; the roll-back then happens in the middle of the load
    command("rollback", "--yes", "--reason", "demo")
    thread.join()
    counts = {"requests": outcome["verdict"]["requests"], "failed": outcome["verdict"]["failed"]}
    return f"{counts['failed']} of {counts['requests']} requests failed", counts


def objective(verdict: dict[str, Any]) -> dict[str, Any]:
    """The latency objective of a verdict in the form that demo.json promises."""
    row = next(o for o in verdict["objectives"] if o["metric"] == "latency")
    interval = row.get("interval")
    return {
        "verdict": verdict["result"],
        "percentile": row["percentile"],
        "max_s": row["max"],
        "estimate_s": row.get("estimate"),
        "interval_s": [interval["low"], interval["high"]] if interval else None,
    }


def main() -> None:
    """All steps in order; on failure what was reached is still written down."""
    before = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    steps = Steps()
    steps.run("init", init)
    variants = steps.run("compress", compress)
    steps.run("package", package)
    evidence = steps.run("tune", tune)
    steps.run("up", up)
    report = steps.run("loadtest", loadtest)
    rolled = before.get("rollback")
    if rolled:
        steps.rows += [{"name": name, "seconds": 0.0, "result": "done in the first run"} for name in ("scale", "second release", "rollback")]
    else:
        steps.run("scale", scale)
        chosen = document("status", quiet=True)["variant"]
        other = next(v["name"] for v in variants if v["name"] != chosen)
        steps.run("second release", lambda: second_release(other))
        rolled = steps.run("rollback", rollback_under_load)
    steps.run("status", lambda: ("shown", command("status")))
    record = {
        "steps": steps.rows,
        "slo": objective(report["verdict"]),
        "forecast": evidence["forecast"],
        "measured": evidence["verdict"],
        "rollback": rolled,
    }
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    print(command("status", quiet=True)[1])
    total = sum(row["seconds"] for row in steps.rows)
    print(f"{'step':<16}{'seconds':>8}  result")
    for row in steps.rows:
        print(f"{row['name']:<16}{row['seconds']:>8.1f}  {row['result']}")
    print(f"{'total':<16}{total:>8.1f}")
    print(f"\nThe service is running. In {DEMO.name}/:")
    print("  deployctl call 'a sentence to embed'")
    print("  deployctl status --watch")
    print("  deployctl down --yes")
    print(f"Report: {report.get('report', DEMO / '.deployctl' / 'reports')}")


if __name__ == "__main__":
    main()
