"""What methods work with: a folder of artifacts by digest, the loaded model, and rows to calibrate on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from deployctl.compress import graph
from deployctl.compress.inputs import Rows
from deployctl.compress.model import Model
from deployctl.core.artifact import Artifact, FileRef
from deployctl.core.project import DistillSpec

Feed = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a method may use.

    Attributes:
        folder: artifacts live in `folder/<hex digest of the main file>/`.
        model: the user's model; None for a source that is ONNX already.
        source: the ONNX file of such a source.
        distill: how a student is made and trained.
        say: hears how far a long step is.
    """

    folder: Path
    model: Model | None = None
    source: Path | None = None
    distill: DistillSpec = DistillSpec()
    say: Callable[[str], None] = lambda _: None

    def scratch(self, name: str) -> Path:
        """An empty folder to write one artifact into."""
        path = self.folder / f"new-{name}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def path(self, artifact: Artifact) -> Path:
        """The main file of an ONNX artifact."""
        return self.folder / artifact.digest.removeprefix("sha256:") / artifact.files[0].path

    def discard(self, artifact: Artifact) -> None:
        """Remove an artifact that is not used after all; one that changed nothing is its parent, which stays."""
        if artifact.digest != artifact.parent:
            shutil.rmtree(self.path(artifact).parent, ignore_errors=True)

    def adopt(self, main: Path, *, parent: str | None) -> Artifact:
        """Take over a scratch folder as an artifact: main file first, then whatever lies beside it (external weights)."""
        others = sorted(p for p in main.parent.iterdir() if p != main)
        files = tuple(FileRef(path=p.name, digest=file_digest(p), size_bytes=p.stat().st_size) for p in [main, *others])
        home = self.folder / files[0].digest.removeprefix("sha256:")
        shutil.rmtree(home, ignore_errors=True)
        main.parent.rename(home)
        inputs, outputs, _ = graph.tensors(home / main.name)
        return Artifact(stage="onnx", digest=files[0].digest, files=files, inputs=inputs, outputs=outputs, parent=parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a method may learn from.

    Attributes:
        feeds: real inputs of one or more rows, also the example for tracing; variants are judged by others where there are enough.
        accepts: whether an artifact, and what the later steps of the recipe make of it, passes the gate on further rows.
        training: all rows that no variant is judged by; None where the sample is too small to keep them apart.
    """

    feeds: tuple[Feed, ...]
    accepts: Callable[[Artifact], bool] = lambda _: True
    training: Rows | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a method did, in one line, and what a person should know.

    `calibrated` where rows of the sample or the gate decided something; `any_gate` where it was not the gate, nor later steps.
    """

    summary: str
    calibrated: bool = False
    any_gate: bool = False
    notes: tuple[str, ...] = ()


Method = Callable[[Artifact, Settings, Calibration], tuple[Artifact, Report]]


def file_digest(path: Path) -> str:
    """`sha256:…` of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
