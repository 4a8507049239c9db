"""A service on a cluster without its checkout: `--context C -n NS NAME` on the verbs that only need the cluster's records."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from deployctl import wiring
from deployctl.cli._setup import opened
from deployctl.core.project import Project
from deployctl.errors import ProjectError
from deployctl.ports import Toolbox

F = TypeVar("F", bound=Callable[..., Any])


def cluster_options(command: F) -> F:
    """`--context` and `--namespace`: with either, or with NAME, no deploy.yaml is read."""
    command = click.option("-n", "--namespace", metavar="NS", help="Namespace of NAME; no deploy.yaml is read then.")(command)
    return click.option("--context", metavar="NAME", help="kubectl context of NAME; no deploy.yaml is read then.")(command)


def elsewhere(name: str | None, context: str | None, namespace: str | None) -> bool:
    """Whether something else than this folder's project is meant."""
    return (name, context, namespace) != (None, None, None)


def opened_anywhere(ctx: click.Context, env: str, name: str | None, context: str | None, namespace: str | None) -> tuple[Project, Toolbox, str]:
    """The project of this folder, or what the cluster's records say of the service NAME; with its ports and environment.

    Raises:
        ProjectError: a place without a name (`service-not-named`), or see `_setup.opened`.
        NotFound: no such service there (`service-not-found`).
    """
    if not elsewhere(name, context, namespace):
        return *opened(ctx.obj, env), env
    if name is None:
        raise ProjectError(
            "a cluster was named, but no service in it",
            hint="deployctl status --all   (lists them; then add the name at the end)",
            code="service-not-named",
        )
    from deployctl.flows import recorded

    given = None if ctx.get_parameter_source("env") is ParameterSource.DEFAULT else env
    address = wiring.fleet(context).find(context, namespace or "default", name, given)
    # Nothing of a checkout is here, and nothing must be written into the present folder.
    scratch = tempfile.TemporaryDirectory(prefix="deployctl-")
    ctx.call_on_close(scratch.cleanup)
    project = recorded.project(wiring.ClusterToolbox(Path(scratch.name), address))
    return project, wiring.ClusterToolbox(Path(scratch.name), address, place=project.environment(address.env)), address.env
