"""`deployctl render`: words and flags."""

from __future__ import annotations

from pathlib import Path

import click

from deployctl.cli._console import ConsoleProgress, env_option


@click.command()
@env_option
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Write one file an object; without it, print all of them."
)
@click.option("--check", is_flag=True, help="Write nothing; exit 5 if DIR differs or a digest is unresolved.")
@click.option("--image", metavar="NAME@sha256:…", help="The Triton image; remembered in the lock of the environment.")
@click.option(
    "--inputs", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Also write what infra/ reads (plan, bundle, scripts)."
)
@click.pass_context
def render(ctx: click.Context, env: str, out: Path | None, check: bool, image: str | None, inputs: Path | None) -> None:
    """Write the Kubernetes manifests of a plan: plain YAML for kubectl, Argo CD or Flux. Asks no cluster."""
    import dataclasses

    from deployctl import config, wiring
    from deployctl.config import files
    from deployctl.core import codec, kube_names, manifests
    from deployctl.flows import render as flow

    if check and out is None:
        raise click.UsageError("--check compares with the files of --out DIR")
    project = config.load(ctx.obj)
    _known(project, env)
    progress, tools = ConsoleProgress(), wiring.LazyToolbox(ctx.obj, env)
    if image and not check:
        flow.pin_image(project, env, tools, image)
    rendered = flow.render(project, env, tools, image=image)
    for notice in rendered.notices:
        progress.note(notice)
    for finding in (f for f in rendered.findings if f.severity != "ok"):
        progress.warn(f"{finding.message}; {finding.remedy}")
    beside = flow.beside(rendered, project.environment(env), tools, out)
    if check and out is not None:
        flow.check(rendered, out, beside)
        progress.note(f"{out}: {len(rendered.files)} files are what deploy.yaml and the lock say")
        return
    if bundle := flow.pin_bundle(tools, rendered):
        progress.note(f"the lock of {env} names the packaged bundle {bundle} from now on")
    if rendered.unresolved:
        progress.warn(f"not known yet, and marked so in every object: {', '.join(rendered.unresolved)}; `render --check` and `up` refuse this")
    if inputs is not None:
        files.replace(inputs, codec.dumps(dataclasses.replace(rendered.inputs, writer="pulumi")).encode())
    if out is None:
        click.echo(kube_names.yaml_documents(manifests.objects(rendered.inputs)), nl=False)
        return
    written, removed = flow.write(rendered, out, beside)
    progress.note(f"{out}: {len(written)} written, {len(removed)} removed, {len(rendered.files) - len(written)} unchanged")
    click.echo(str(out))


def _known(project: object, env: str) -> None:
    from deployctl.core.project import Project
    from deployctl.errors import ProjectError

    assert isinstance(project, Project)
    known = [e.name for e in project.environments]
    if env not in known:
        raise ProjectError(
            f"deploy.yaml has no environment {env!r}",
            why=f"it has: {', '.join(known)}",
            hint="add `on: kubernetes` under environments",
            code="env-unknown",
        )
