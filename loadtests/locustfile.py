"""Open-loop load on a Triton server, for plain Locust with its web UI or without.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --triton-model NAME --bodies FILE --rate 40 --seconds 30 --slo-ms 100

or `--plan FILE` with a request file. `deployctl loadtest` uses the same users and adds the verdict and the report.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from deployctl.core.demand import Demand, RateStep
from deployctl.errors import DeployctlError
from loadtests import plan as planning
from loadtests.users.openloop import DRIVERS, Job, OpenLoopUser, PlanShape
from loadtests.web import slo

__all__ = ["OpenLoopUser", "PlanShape"]


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Our flags; those that make sense there also stand in the web UI's form."""
    parser.add_argument("--plan", metavar="FILE", default="", help="A request file; the flags below are then ignored", include_in_web_ui=False)
    parser.add_argument(
        "--samples", metavar="DIR", default="", help="Folder for the exact samples (default: a temporary one)", include_in_web_ui=False
    )
    parser.add_argument("--triton-model", metavar="NAME", default="", help="Model to send to")
    parser.add_argument("--bodies", metavar="FILE", default="", help="JSON lines with the example requests")
    parser.add_argument("--rate", type=float, default=10.0, help="Requests per second")
    parser.add_argument("--arrivals", choices=["poisson", "constant"], default="poisson", help="Law of the gaps")
    parser.add_argument("--seconds", type=float, default=30.0, help="Length")
    parser.add_argument("--protocol", choices=list(DRIVERS), default="http", help="Protocol")
    slo.add_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="The same seed sends the same requests at the same moments")


def request_of(options: Namespace, host: str | None) -> planning.Request:
    """The request that the flags describe.

    Raises:
        PlanError: a flag is missing (`loadtest-usage`).
    """
    if options.plan:
        return planning.Request.read(Path(options.plan))
    missing = [flag for flag, value in (("--host", host), ("--triton-model", options.triton_model), ("--bodies", options.bodies)) if not value]
    if missing or host is None:
        raise planning.PlanError("loadtest-usage", f"{', '.join(missing)} must be given, or --plan")
    return planning.Request(
        url=host.split("://")[-1].rstrip("/"),
        protocol=options.protocol,
        model=options.triton_model,
        bodies=options.bodies,
        demand=Demand(steps=(RateStep(start_s=0.0, rate_rps=options.rate),), arrivals=options.arrivals),
        duration_s=options.seconds,
        seed=options.seed,
    )


@events.init.add_listener
def show_promise(environment: Environment, **_: Any) -> None:
    """The tab SLO in the web UI."""
    slo.install(environment)


@events.test_start.add_listener
def plan_it(environment: Environment, **_: Any) -> None:
    """Fix what will be sent before the user starts."""
    if isinstance(environment.runner, (MasterRunner, WorkerRunner)):
        _refuse(environment, "one process sends the whole plan; run without --master, --worker and --processes")
        return
    options = environment.parsed_options
    try:
        plan = planning.make(request_of(options, environment.host))
    except (planning.PlanError, DeployctlError, OSError, ValueError) as error:
        _refuse(environment, str(error))
        return
    folder = Path(options.samples or tempfile.mkdtemp(prefix="deployctl-load-"))
    folder.mkdir(parents=True, exist_ok=True)
    logging.info("%d requests are planned; samples go to %s", len(plan.times_s), folder)
    environment.job = Job(plan=plan, out=folder)


def _refuse(environment: Environment, why: str) -> None:
    logging.error("no load was sent: %s", why)
    environment.process_exit_code = 1
    environment.job = Job(plan=None, out=Path(), error=("loadtest-usage", why), done=True)


@events.test_stop.add_listener
def tell(environment: Environment, **_: Any) -> None:
    """Say how it ended."""
    job: Job | None = getattr(environment, "job", None)
    if job is not None and job.error is not None:
        logging.error("%s", job.error[1])
        environment.process_exit_code = 1
    elif job is not None:
        logging.info("result: %s", job.result)
        for row in slo.rows(environment):
            logging.info("%(objective)s: %(result)s (%(measured)s, limit %(limit)s, interval %(interval)s) %(reason)s", row)
