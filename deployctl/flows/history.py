"""history: the releases, oldest first, with which one serves and which are on hold. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from deployctl.config import locks
from deployctl.core.project import Project
from deployctl.core.release import Release
from deployctl.flows import _gather
from deployctl.ports import Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One release and its standing now."""

    release: Release
    serving: bool
    held: bool


def history(project: Project, env: str, tools: Toolbox) -> list[HistoryRow]:
    """Every release of the environment.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.

    Raises:
        ProjectError: a record is damaged (`record-damaged`).
    """
    found = _gather.history(tools, locks.read(tools.workspace.lock(env), env))
    serving = tools.target.status().revision_serving
    return [HistoryRow(release=r, serving=r.revision == serving, held=r.content in found.held) for r in found.releases]
