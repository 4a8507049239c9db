"""Runs one planned test under Locust without its command line: `python run.py REQUEST.json OUT_FOLDER`.

Locust's own configuration files and variables are left out on purpose, so that a test depends on the request file alone.
Progress goes to stdout as one JSON document a line; the last one says how it ended. Samples are in OUT_FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from locust.env import Environment

from loadtests import plan as planning
from loadtests.users import openloop


def say(document: dict[str, object]) -> None:
    """One line for the reader; if nobody reads any more, the test has no purpose."""
    print(json.dumps(document), flush=True)


def main(request_file: str, out: str) -> int:
    """Run and return the exit code: 0 when every planned request has an outcome."""
    openloop.die_with_parent()
    try:
        request = planning.Request.read(Path(request_file))
        job = openloop.Job(plan=planning.make(request), out=Path(out), say=say)
    except planning.PlanError as error:
        say({"error": [error.code, str(error)]})
        return 1
    environment = Environment(user_classes=[openloop.OpenLoopUser], catch_exceptions=False)
    environment.job = job
    runner = environment.create_local_runner()
    runner.start(1, spawn_rate=1)
    while not job.done:
        import gevent

        gevent.sleep(0.02)
    runner.quit()
    if job.error is not None:
        say({"error": list(job.error)})
        return 1
    say({"result": job.result})
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # gRPC's channels hang when they are closed under gevent
