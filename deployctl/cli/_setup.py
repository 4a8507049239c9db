"""What the verbs about releases share: the project, the ports of one environment, who is asking, and how numbers are typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from deployctl import config, wiring
from deployctl.config import units
from deployctl.core.platform import ServiceAddress
from deployctl.core.project import Environment, Project
from deployctl.errors import ProjectError
from deployctl.ports import Toolbox


def opened(root: Path, env: str) -> tuple[Project, Toolbox]:
    """The project at `root` and the ports of one of its environments.

    Raises:
        ProjectError: deploy.yaml does not hold, or has no such environment (`env-unknown`).
    """
    project = config.load(root)
    return project, _tools(root, project, place_of(project, env))


def place_of(project: Project, env: str) -> Environment:
    """The environment of that name.

    Raises:
        ProjectError: deploy.yaml has none (`env-unknown`).
    """
    try:
        return project.environment(env)
    except KeyError:
        known = ", ".join(e.name for e in project.environments)
        raise ProjectError(
            f"deploy.yaml has no environment {env!r}",
            why=f"it has: {known}",
            hint="choose one with --env, or add it to deploy.yaml",
            code="env-unknown",
        ) from None


def toolbox(root: Path, env: str, *, named: bool = True) -> tuple[Project, Toolbox]:
    """Like `opened`; where nobody named the environment it need not exist."""
    project = config.load(root)
    if named or env in {e.name for e in project.environments}:
        return project, _tools(root, project, place_of(project, env))
    return project, wiring.LazyToolbox(root, env)


def _tools(root: Path, project: Project, place: Environment) -> Toolbox:
    if place.on == "kubernetes":
        address = ServiceAddress(context=place.context, namespace=place.namespace, service=project.name, env=place.name)
        if place.writer == "gitops":
            return wiring.CommittedToolbox(root, address, place)
        return wiring.ClusterToolbox(root, address, place=place)
    return wiring.LazyToolbox(root, place.name, place=place)


def me() -> str:
    """Who asks, for the record: user, machine, process."""
    return wiring.me()


class Unit(click.ParamType[float]):
    """A number with its unit, in the grammar of deploy.yaml; what is wrong is a usage error that shows the form."""

    def __init__(self, name: str, parse: Callable[[str], float], *, positive: bool = False) -> None:
        self.name = name
        self._parse = parse
        self._positive = positive

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number in base units."""
        if isinstance(value, float):
            return value
        try:
            parsed = self._parse(str(value).strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self._positive and parsed <= 0:
            self.fail(f"{str(value).strip()!r} is not above zero", param, ctx)
        return parsed


def Duration(*, positive: bool = False) -> Unit:
    """`90s`, `15min`, `2h` in seconds; `positive` refuses zero."""
    return Unit("duration", units.seconds, positive=positive)


def Rate(*, positive: bool = False) -> Unit:
    """`40/s` or `3/min` in requests per second; `positive` refuses zero."""
    return Unit("rate", units.rate_rps, positive=positive)


timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=Duration(),
    default="15min",
    show_default=True,
    metavar="TIME",
    help="Longest wait; the change itself goes on after it.",
)
