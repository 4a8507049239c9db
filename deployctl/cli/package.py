"""`deployctl package`: words and flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deployctl.cli import _console
from deployctl.core import words
from deployctl.core.artifact import TensorSpec
from deployctl.core.bundle import Bundle


@click.command()
@click.option("--variant", metavar="NAME", help="Take this variant instead of the fastest that passes the gate.")
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Also write a plain Triton repository to DIR.")
@click.option(
    "--backend",
    type=click.Choice(["native", "python"]),
    default="native",
    show_default=True,
    help="For -o: Triton's own onnxruntime backend, or a Python twin for a Triton without it.",
)
@click.option("--env", "-e", default="local", show_default=True, metavar="NAME", help="Environment: its tuned settings for -o, its store for --push.")
@click.option("--push", is_flag=True, help="Also send the bundle to the environment's store: only what is missing there.")
@click.option("--lock", "lock_env", metavar="ENV", help="Write the bundle into lock/ENV.lock (and push to that environment's store with --push).")
@click.option("--force", is_flag=True, help="Compress, assemble, prove and send again, also where nothing changed.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="Form of the result on stdout."
)
@click.pass_obj
def package(
    root: Path, variant: str | None, folder: Path | None, backend: str, env: str, push: bool, lock_env: str | None, force: bool, form: str
) -> None:
    """Build a Triton model repository and prove that it loads and answers.

    The proof starts a real Triton on the bundle and compares its answers to your sample with those of the variant run
    directly. What was proven once is not proven again. The folder that -o writes needs no deployctl.
    """
    from deployctl.cli._setup import toolbox
    from deployctl.flows import package as flow
    from deployctl.flows import push as pushing

    project, tools = toolbox(root, lock_env or env, named=push or lock_env is not None)
    progress = _console.ConsoleProgress()
    if push:
        pushing.check(tools, lock_env or env)
    if folder is not None:
        flow.check_free(folder)
    bundle = flow.package(project, tools, progress, variant=variant, force=force)
    if folder is not None:
        flow.export(bundle, folder, tools, lock_env or env, native=backend == "native")
        progress.note(f"a repository for `tritonserver --model-repository {folder}` ({backend} backend) lies in {folder}")
    if push or lock_env:
        done = pushing.push(project, bundle, tools, progress, env=lock_env or env, send=push, write_lock=lock_env is not None, again=force)
        for line in done:
            progress.note(line)
    _console.emit(_data(bundle), form, lambda: _table(bundle))


def _data(bundle: Bundle) -> dict[str, Any]:
    from deployctl.core import codec

    data: dict[str, Any] = codec.to_data(bundle)
    return {"digest": bundle.digest, **data}


def _table(bundle: Bundle) -> str:
    rows: list[tuple[str, ...]] = []
    for model in bundle.models:
        size = sum(f.size_bytes for f in bundle.files if f.path.startswith(f"{model.name}/"))
        entry = " (entry)" if model.name == bundle.entry else ""
        batch = "off" if model.serving.max_batch == 0 else str(model.serving.max_batch)
        rows.append((model.name + entry, model.backend, batch, f"{size / 1e6:.1f} MB", _tensors(model.inputs), _tensors(model.outputs)))
    table = _console.columns(rows, ("MODEL", "BACKEND", "MAX BATCH", "SIZE", "TAKES", "GIVES"))
    return f"bundle {words.short(bundle.digest)}  {bundle.name}, variant {bundle.variant}\n{table}"


def _tensors(tensors: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{t.name} {t.dtype}[{','.join('*' if d < 0 else str(d) for d in t.shape)}]" for t in tensors)
