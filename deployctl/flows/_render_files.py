"""The rendered files of an environment: names, writing, and what `--check` refuses. Other people's files are never touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deployctl.config import files
from deployctl.core import codec, manifests
from deployctl.core.bundle import Bundle
from deployctl.core.finding import Finding
from deployctl.core.gitops import plan_from
from deployctl.core.plan import Plan
from deployctl.core.project import Environment
from deployctl.errors import ModelError, Refused
from deployctl.ports import Toolbox

HEADER = "# Rendered by `deployctl render` from deploy.yaml and the lock; change those instead.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The result: file name -> text, what is not known yet, and what a person should know."""

    inputs: manifests.Inputs
    files: dict[str, str]
    unresolved: tuple[str, ...]
    notices: tuple[str, ...]
    findings: tuple[Finding, ...]


def file_name(item: manifests.Manifest) -> str:
    """Stable over releases, so that a review shows what changed: the release's ConfigMap has its content in its name."""
    name = "release" if item.get("immutable") else item["metadata"]["name"]
    return f"{item['kind'].lower()}-{name}.yaml"


def write(rendered: Rendered, out: Path, also: dict[Path, bytes] | None = None) -> tuple[list[str], list[str]]:
    """Write the files and those beside, each atomically, and remove our own that are no longer made: (written, removed)."""
    write_files(also or {})
    written = [name for name, text in rendered.files.items() if _text(out / name) != text]
    for name in written:
        files.replace(out / name, rendered.files[name].encode())
    removed = stale(rendered, out)
    for name in removed:
        (out / name).unlink()
    return written, removed


def write_files(wanted: dict[Path, bytes]) -> None:
    """Write each file that differs, atomically."""
    for path, data in wanted.items():
        if not path.is_file() or path.read_bytes() != data:
            files.replace(path, data)


def stale(rendered: Rendered, out: Path) -> list[str]:
    """Files of ours in the folder that this rendering does not make; other people's files are not looked at."""
    found = sorted(p.name for p in out.glob("*.yaml")) if out.is_dir() else []
    return [name for name in found if name not in rendered.files and (_text(out / name) or "").startswith(HEADER)]


def beside(rendered: Rendered, place: Environment, tools: Toolbox, out: Path | None) -> dict[Path, bytes]:
    """What belongs beside the manifests where `out` is the folder that commits release; nothing elsewhere."""
    if place.writer != "gitops" or out is None or out.resolve() != (tools.workspace.root / place.folder).resolve():
        return {}
    return records(rendered, tools)


def records(rendered: Rendered, tools: Toolbox) -> dict[Path, bytes]:
    """What is committed beside the manifests, so that a review, CI and a rollback need nothing else: the plan and the bundle's file list."""
    plan, bundle, workspace = rendered.inputs.plan, rendered.inputs.bundle, tools.workspace
    found = {workspace.plan(plan.env): codec.dumps(plan).encode()}
    if bundle is not None:
        found[workspace.manifest(bundle.digest)] = codec.dumps(bundle).encode()
    return found


def committed_bundle(tools: Toolbox, digest: str) -> Bundle | None:
    """The bundle whose file list stands beside the lock; None where there is none. It is what its digest says, or it is refused.

    Raises:
        ModelError: the file is not what its name promises (`blob-damaged`).
    """
    path = tools.workspace.manifest(digest)
    if not path.is_file():
        return None
    bundle = codec.loads(Bundle, path.read_text("utf-8"), where=str(path))
    if bundle.digest != digest:
        hint = f"restore {path.name} from git, or delete it and run deployctl package"
        raise ModelError(f"{path.name} is not the file list of {digest[:19]}", where=str(path), hint=hint, code="blob-damaged")
    return bundle


def released(tools: Toolbox, env: str) -> Plan | None:
    """The plan that the committed manifests were rendered from; None before the first release, or where this version cannot read it."""
    path = tools.workspace.plan(env)
    return plan_from(path.read_bytes()) if path.is_file() else None


def require_whole(rendered: Rendered, out: Path) -> None:
    """Refuse what nobody should apply.

    Raises:
        Refused: a digest is unresolved (`unresolved`), or a trap was found (`manifest-trap`).
    """
    if rendered.unresolved:
        raise Refused(
            f"not known yet: {', '.join(rendered.unresolved)}",
            why="a manifest whose content is not pinned would run whatever is there later",
            hint=f"deployctl package, name `store:` and the image, then deployctl render --env {rendered.inputs.plan.env} --out {out}",
            code="unresolved",
        )
    traps = [f for f in rendered.findings if f.severity == "fail"]
    if traps:
        raise Refused(traps[0].message, hint=traps[0].remedy, code="manifest-trap", where=traps[0].where)


def check(rendered: Rendered, out: Path, also: dict[Path, bytes] | None = None) -> None:
    """Refuse what must not be merged.

    Args:
        rendered: what deploy.yaml and the lock say.
        out: the folder that should hold it.
        also: further files that should be so.

    Raises:
        Refused: as `require_whole`, or the files are not what deploy.yaml and the lock say (`render-drift`).
    """
    require_whole(rendered, out)
    changed = [name for name, text in rendered.files.items() if _text(out / name) != text] + stale(rendered, out)
    changed += [path.name for path, data in (also or {}).items() if not path.is_file() or path.read_bytes() != data]
    if changed:
        raise Refused(
            f"{out} is not what deploy.yaml and the lock say: {', '.join(sorted(changed))}",
            hint=f"deployctl render --env {rendered.inputs.plan.env} --out {out}   (and commit the result)",
            code="render-drift",
        )


def _text(path: Path) -> str | None:
    return path.read_text("utf-8") if path.is_file() else None
