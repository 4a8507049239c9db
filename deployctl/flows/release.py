"""release allow: lift the hold that a rollback put on a release, here and in the committed lock."""

from __future__ import annotations

import dataclasses

from deployctl.config import locks
from deployctl.core.project import Project
from deployctl.errors import NotFound
from deployctl.flows import _gather
from deployctl.ports import Toolbox


def allow(project: Project, env: str, tools: Toolbox, content: str) -> str:
    """Lift one hold and return the content digest that is free again.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.
        content: digest, or a unique prefix of it with or without `sha256:`.

    Raises:
        NotFound: nothing on hold matches, or several do (`hold-not-found`).
    """
    with tools.records.exclusive():
        lock = locks.read(tools.workspace.lock(env), env)
        held = _gather.history(tools, lock).held
        matches = [h for h in held if content and (h.startswith(content) or h.removeprefix("sha256:").startswith(content))]
        if len(matches) != 1:
            raise NotFound(
                f"{len(matches) or 'no'} releases on hold match {content!r}",
                why="on hold: " + (", ".join(h[:19] for h in held) or "nothing"),
                hint="deployctl history",
                code="hold-not-found",
            )
        if matches[0] in lock.held:
            locks.write(tools.workspace.lock(env), dataclasses.replace(lock, held=tuple(h for h in lock.held if h != matches[0])))
        if matches[0] in tools.records.history().held:
            tools.records.allow(matches[0])
    return matches[0]
