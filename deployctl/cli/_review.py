"""`deployctl diff --base`: how a review is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deployctl import config, wiring
from deployctl.cli import _gitops
from deployctl.cli._console import emit
from deployctl.core.review import Review, markdown, table_lines, verdict
from deployctl.errors import DeployctlError, ProjectError
from deployctl.flows.review import review


def show(root: Path, env: str, base: str, output: str) -> int:
    """Print what the present tree changes against a commit; 1 if it does, 0 if not.

    Raises:
        DeployctlError: see `flows.review.review`; never with exit code 1, which means "differs" here.
    """
    try:
        project = config.load(root)
        known = [e.name for e in project.environments]
        if env not in known:
            why = f"it has: {', '.join(known)}"
            raise ProjectError(f"deploy.yaml has no environment {env!r}", why=why, hint="choose one with --env", code="env-unknown")
        found = review(project, env, wiring.LazyToolbox(root, env), _gitops.repository(root), base)
    except DeployctlError as error:
        error.exit_code = 2 if error.exit_code == 1 else error.exit_code
        raise
    if output == "markdown":
        click.echo(markdown(found), nl=False)
    else:
        emit(_data(found), output, lambda: "\n".join(table_lines(found)))
    return 1 if found.differs else 0


def _data(found: Review) -> dict[str, Any]:
    return {
        "service": found.service,
        "env": found.env,
        "base": found.base,
        "verdict": verdict(found),
        "proven": found.proven,
        "unresolved": list(found.unresolved),
        "facts": [{"fact": r.fact, "before": r.before, "after": r.after, "differs": r.differs} for r in found.rows],
        "objects": [{"name": o.name, "sign": o.sign, "diff": list(o.diff)} for o in found.objects],
        "findings": [{"name": f.name, "severity": f.severity, "message": f.message, "remedy": f.remedy} for f in found.findings],
        "notices": list(found.notices),
    }
