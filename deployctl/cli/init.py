"""`deployctl init`: flags and words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployctl.cli import _console
from deployctl.errors import ProjectError

if TYPE_CHECKING:
    from deployctl.flows.init import Draft


@click.command()
@click.option("--template", default="sentence-embedding", show_default=True, metavar="NAME", help="What to start from; `list` shows all.")
@click.option("--from", "source", type=click.Path(path_type=Path), metavar="FILE|DIR", help="An ONNX file or an existing Triton repository.")
@click.option("--name", metavar="NAME", help="Name of the service; default is the folder's name.")
@click.option("--rate", default="12/s", show_default=True, metavar="RATE", help="Traffic to expect, such as 40/s.")
@click.option("--p99", default="250ms", show_default=True, metavar="TIME", help="The promise: 99 of 100 answers come within it.")
@click.option("--gitops", type=click.Choice(["argocd", "flux"]), help="Also write what Argo CD or Flux needs, and a CI file; releases are commits.")
@click.option("--ci", type=click.Choice(["github", "gitlab"]), default="github", show_default=True, help="For --gitops: which CI file.")
@click.option("--force", is_flag=True, help="Overwrite files that stand in the way.")
@_console.yes_option
@click.pass_obj
def init(
    root: Path, template: str, source: Path | None, name: str | None, rate: str, p99: str, gitops: str | None, ci: str, force: bool, yes: bool
) -> None:
    """Write deploy.yaml for a model, after showing it.

    Without --from, a model that lies in the folder is taken (one ONNX file, or one Triton repository), else the template.
    """
    from importlib.metadata import version

    from deployctl import wiring
    from deployctl.config import templates
    from deployctl.flows import init as flow

    if template == "list":
        click.echo(_console.columns(list(templates.TEMPLATES.items()), ("TEMPLATE", "MAKES")))
        return
    if template not in templates.TEMPLATES:
        raise ProjectError(
            f"there is no template {template[:60]!r}",
            why=f"known: {', '.join(templates.TEMPLATES)}",
            hint="deployctl init --template list",
            code="flag-invalid",
        )
    _check_flags(rate, p99, name)
    _console.can_ask(yes=yes)
    commits = flow.Gitops(controller=gitops, ci=ci, version=version("deployctl"), repository=_remote(root)) if gitops else None
    found = source or (None if gitops and (root / "deploy.yaml").is_file() else flow.detect(root))
    if found is not None and source is None:
        click.echo(f"found {found.name}; --from names another model", err=True)
    wish = flow.Wish(root=root, name=name or _default_name(root), rate=rate, p99=p99, template=template, source=found, force=force, gitops=commits)
    draft = flow.propose(wish, wiring.load(wiring.ADAPTERS["inspector"])())
    if not yes:
        _show_file(draft)
    _show_findings(draft)
    if set(draft.same) == set(draft.files):
        click.echo("everything stands here already; nothing to write", err=True)
    else:
        _console.confirm(f"Write {', '.join(n for n in draft.files if n not in draft.same)} to {root.resolve()}?", yes=yes)
        flow.write(draft)
    click.echo(str(root / draft.shown))
    following = "commit these files, then deployctl promote local prod" if gitops else "deployctl doctor, then deployctl up"
    click.echo(f"next: {following}", err=True)


def _remote(root: Path) -> str | None:
    """The address that people share, where the folder lies in a repository that has one."""
    from deployctl import wiring
    from deployctl.errors import DeployctlError

    if not root.is_dir():
        return None
    try:
        address: str | None = wiring.load(wiring.ADAPTERS["git"])(root).remote()
    except DeployctlError:  # no git or no repository yet: then nothing is known, which the draft says
        return None
    return address


def _check_flags(rate: str, p99: str, name: str | None) -> None:
    """The flags go into the file, so they obey its grammar; a wrong one is told by its own name."""
    from deployctl.config import units

    for flag, parse, value in (("--rate", units.rate_rps, rate), ("--p99", units.seconds, p99)):
        try:
            if parse(value) <= 0:
                raise ValueError(f"{value!r} must be more than zero")
        except ValueError as error:
            raise ProjectError(f"{flag}: {error}", hint="correct the flag and repeat the command", code="flag-invalid") from error
    if name is not None and not units.NAME.fullmatch(name):
        message = f"--name: {name[:60]!r} is not {units.NAME_FORM}"
        raise ProjectError(message, hint="correct the flag and repeat the command", code="flag-invalid")


def _default_name(root: Path) -> str:
    from deployctl.config.loader import default_name

    return default_name(root.resolve())


def _show_file(draft: Draft) -> None:
    """The proposed file, on stderr: what is asked about."""
    click.echo(_console.style(draft.shown, bold=True), err=True)
    for line in draft.text.splitlines():
        click.echo(f"  {line}".rstrip(), err=True)
    click.echo("", err=True)


def _show_findings(draft: Draft) -> None:
    """What was noticed in an existing repository, on stderr."""
    for finding in draft.findings:
        colour = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.severity]
        click.echo(f"{_console.style(f'{finding.severity:<4}', fg=colour)}  {finding.name}: {finding.message}", err=True)
        if finding.remedy:
            click.echo(f"      fix: {finding.remedy}", err=True)
