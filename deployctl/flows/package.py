"""`package`: choose a variant, assemble its bundle by digest, and prove it in a real Triton. What was proven is not proven twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deployctl import share
from deployctl.config import locks
from deployctl.core import packaging, pareto
from deployctl.core.artifact import FileRef, Variant
from deployctl.core.bundle import Bundle
from deployctl.core.compressed import Compressed
from deployctl.core.project import Project
from deployctl.errors import MachineError, ProjectError, SloUnreachable
from deployctl.flows._environment import added
from deployctl.flows._existing import existing_bundle
from deployctl.flows._proof import prove
from deployctl.flows.compress import KINDS, compressed
from deployctl.ports import Progress, Toolbox


def package(
    project: Project, tools: Toolbox, progress: Progress, *, variant: str | None = None, force: bool = False, elsewhere: bool = False
) -> Bundle:
    """The bundle of deploy.yaml's model, stored and proven; compresses first where that was not done.

    Args:
        project: deploy.yaml, completed.
        tools: ports.
        progress: talk.
        variant: take this one instead of the fastest that passes the gate.
        force: make and prove everything again.
        elsewhere: it will serve on another machine, so one without a Triton may package it; that is said.

    Raises:
        SloUnreachable: no variant passes the fidelity gate, or not the named one (`fidelity-gate`, exit 97).
        ModelError: it does not load, or answers differ from those of the variant run directly (`proof-differs`).
    """
    if project.model.kind in KINDS:
        record = compressed(project, tools, progress, force=force)
        chosen = pick(record.variants, variant)
        bundle, answers = added(assemble(project.name, record, chosen, tools), project, tools), record.answers[chosen.name]
    else:
        bundle, answers = added(existing_bundle(project, tools, progress), project, tools), ""
    tools.bundles.save(bundle)
    try:
        prove(bundle, answers, tools, progress, force=force)
    except MachineError as error:
        if not elsewhere or error.code != "triton-missing":
            raise
        progress.note("not proven on this machine, which has no Triton; each pod does a real inference before it gets traffic")
    return bundle


def pick(variants: tuple[Variant, ...], name: str | None) -> Variant:
    """The named variant, or the fastest that passes; see `package` for what is raised."""
    if name is not None and name not in {v.name for v in variants}:
        known = ", ".join(v.name for v in variants)
        raise ProjectError(
            f"there is no variant {name}", hint=f"name one of {known}, or add it to compress.try in deploy.yaml", code="variant-unknown"
        )
    offered = tuple(v for v in variants if name in (None, v.name))
    chosen = pareto.choose(offered)
    if chosen is None:
        best = max(offered, key=lambda v: v.fidelity.worst.lower95)
        worst = best.fidelity.worst
        raise SloUnreachable(
            f"{'the variant ' + name if name else 'no variant'} {'fails' if name else 'passes'} the fidelity gate of {best.fidelity.gate:g}",
            why=f"the best, {best.name}, has a lower bound of {worst.lower95:.6f} when asked {worst.name}",
            hint="see `deployctl compress` for all figures; lower compress.fidelity.min, or add a more faithful method to compress.try",
            code="fidelity-gate",
            exit_code=97,
        )
    return chosen


def assemble(name: str, record: Compressed, variant: Variant, tools: Toolbox) -> Bundle:
    """Models and files of one variant. The same inputs give the same digest."""
    models = packaging.models_of(name, record, variant.artifact)
    graph = models[0] if record.tokenizer is None else models[1]
    files = [*_pattern("onnx_python", graph.name, tools)]
    files += [FileRef(path=f"{graph.name}/1/{f.path}", digest=f.digest, size_bytes=f.size_bytes) for f in variant.artifact.files]
    if record.tokenizer is not None:
        blob = record.tokenizer
        files += [*_pattern("tokenizer_python", models[0].name, tools), *_pattern("ensemble", name, tools)]
        files.append(FileRef(path=f"{models[0].name}/1/tokenizer.json", digest=blob.digest, size_bytes=blob.size_bytes))
    return Bundle(
        name=name,
        entry=name,
        variant=variant.name,
        models=models,
        files=tuple(sorted(files, key=lambda f: f.path)),
        size_rule=record.size_rule,
        sample=record.sample,
    )


def _pattern(pattern: str, model: str, tools: Toolbox) -> Iterator[FileRef]:
    for name, path in share.files(share.folder("model_repo") / pattern / "1"):
        yield FileRef(path=f"{model}/1/{name}", digest=tools.blobs.put_file(path), size_bytes=path.stat().st_size)


def check_free(folder: Path) -> None:
    """Refuse a folder that has something in it before any work is done (`folder-not-empty`)."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProjectError(f"{folder} is not an empty folder", hint="name another folder, or empty this one", code="folder-not-empty")


def export(bundle: Bundle, folder: Path, tools: Toolbox, env: str, *, native: bool) -> None:
    """Write the bundle as a plain repository that people may edit, with the settings that were tuned for exactly this bundle."""
    lock = locks.read(tools.workspace.lock(env), env)
    tuned = lock.tuned.settings if lock.tuned is not None and lock.bundle == bundle.digest else None
    check_free(folder)
    tools.repository.build(bundle, folder.absolute(), settings=tuned, native=native)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode | 0o200)
