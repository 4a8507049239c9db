"""`init`: look at what is there, propose files, write them. What enters are words and a folder, what leaves is a project.

Nothing is written before the proposal was shown; nothing that differs is overwritten unless that was asked for. deploy.yaml
comes last: where it stands, everything it names stands too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from deployctl.config import existing, files, loader, templates
from deployctl.config import gitops as gitops_files
from deployctl.core import repocheck
from deployctl.core.finding import Finding
from deployctl.core.project import Environment
from deployctl.errors import NotFound, ProjectError
from deployctl.ports import ModelInspector

_IGNORED = ".deployctl/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gitops:
    """Which controller, which CI system with which deployctl; `repository` is the address that people share, None where there is none yet."""

    controller: str
    ci: str
    version: str
    repository: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for; `source` is an ONNX file or a Triton repository, None for a template."""

    root: Path
    name: str
    rate: str
    p99: str
    template: str = "sentence-embedding"
    source: Path | None = None
    force: bool = False
    gitops: Gitops | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What would be written: `files` in order, deploy.yaml last; `same` stand there already; `findings` are to be read; `shown` is shown."""

    root: Path
    files: dict[str, bytes]
    same: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    shown: str = "deploy.yaml"

    @property
    def text(self) -> str:
        """The file that is shown before anything is written."""
        return self.files[self.shown].decode()


def detect(root: Path) -> Path | None:
    """The model that lies in the folder: the only ONNX file, or the only Triton repository; None where a template is meant."""
    if not root.is_dir() or any(root.glob("*.py")):
        return None
    repositories = sorted({p.parent.parent for p in root.glob("*/*/config.pbtxt") if not p.parent.parent.name.startswith(".")})
    found = [*sorted(root.glob("*.onnx")), *repositories]
    return found[0] if len(found) == 1 else None


def propose(wish: Wish, inspector: ModelInspector) -> Draft:
    """What `init` would write.

    Raises:
        NotFound: the named model is not there (`model-not-found`).
        ProjectError: a file stands in the way and differs (`init-would-overwrite`).
        ModelError, MachineError: the model cannot be read.
    """
    if wish.gitops is not None and wish.source is None and (wish.root / "deploy.yaml").is_file():
        return _released_by_commits(wish, wish.gitops)
    words = {
        "NAME": wish.name,
        "RATE": wish.rate,
        "P99": wish.p99,
        "PROD": "" if wish.gitops else "# ",
        "WRITER": "writer: gitops, " if wish.gitops else "",
    }
    findings: tuple[Finding, ...] = ()
    if wish.source is None:
        made = templates.render(wish.template, words)
    elif wish.source.is_dir():
        models = inspector.triton(wish.source)
        findings = tuple(repocheck.findings(models))
        made = templates.render(templates.EXISTING["triton"], {**words, **existing.repository_words(wish.root, wish.source, models)})
    elif wish.source.is_file():
        inputs, outputs = inspector.onnx(wish.source)
        made = templates.render(templates.EXISTING["onnx"], {**words, **existing.onnx_words(wish.root, wish.source, inputs, outputs)})
        if existing.tokenizer_beside(wish.source, inputs):
            made = {"samples.jsonl": templates.sample(), **made}
    else:
        hint = "name an ONNX file or a Triton repository: deployctl init --from model.onnx"
        raise NotFound(f"there is no file or folder {wish.source}", hint=hint, code="model-not-found")
    around: dict[str, bytes] = {}
    if wish.gitops is not None:
        around, open_ends = _around(wish.gitops, wish.name, [Environment(name="prod", on="kubernetes", writer="gitops")])
        findings = (*findings, *open_ends)
    return _draft(wish, {".gitignore": _gitignore(wish.root), **around, **made}, findings)


def _released_by_commits(wish: Wish, gitops: Gitops) -> Draft:
    """The files around a project that stands already.

    Raises:
        ProjectError: none of its environments has `writer: gitops` (`gitops-no-environment`).
    """
    project = loader.load(wish.root)
    places = [e for e in project.environments if e.writer == "gitops"]
    if not places:
        raise ProjectError(
            "no environment of deploy.yaml is released by commits",
            hint="add `writer: gitops` to an environment with `on: kubernetes`, then repeat the command",
            code="gitops-no-environment",
        )
    made, findings = _around(gitops, project.name, places)
    return dataclasses.replace(_draft(wish, made, findings), shown=next(iter(made)))


def _around(gitops: Gitops, service: str, places: list[Environment]) -> tuple[dict[str, bytes], tuple[Finding, ...]]:
    """The controller's objects and the CI file, and what a person has still to fill in."""
    made = gitops_files.files(gitops.controller, gitops.ci, service, places, repository=gitops.repository, version=gitops.version)
    if gitops.repository is not None:
        return made, ()
    message = f"the repository has no remote yet: {', '.join(n for n in made if n.startswith('clusters/'))} cannot name it"
    remedy = "git remote add origin URL, then repeat deployctl init --gitops with --force"
    return made, (Finding(name="repository-unknown", severity="warn", message=message, remedy=remedy),)


def _draft(wish: Wish, made: dict[str, bytes], findings: tuple[Finding, ...]) -> Draft:
    """The draft, unless a file that differs stands in the way."""
    same = tuple(name for name, data in made.items() if _read(wish.root / name) == data)
    blocked = [name for name in made if name not in same and name != ".gitignore" and (wish.root / name).exists()]
    if blocked and not wish.force:
        raise ProjectError(
            f"{' and '.join(blocked)} stand{'s' if len(blocked) == 1 else ''} here already and would be overwritten",
            code="init-would-overwrite",
            hint="deployctl init --force   (overwrites), or work in an empty folder: deployctl -C DIR init",
        )
    return Draft(root=wish.root, files=made, same=same, findings=findings)


def write(draft: Draft) -> None:
    """Write every file whole; a second run after a crash goes on where the first one stopped."""
    for name, data in draft.files.items():
        if name not in draft.same:
            files.replace(draft.root / name, data)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _gitignore(root: Path) -> bytes:
    present = (_read(root / ".gitignore") or b"").decode("utf-8", "surrogateescape")
    if _IGNORED in present.split():
        return present.encode("utf-8", "surrogateescape")
    joint = "" if not present or present.endswith("\n") else "\n"
    return f"{present}{joint}{_IGNORED}\n".encode("utf-8", "surrogateescape")
