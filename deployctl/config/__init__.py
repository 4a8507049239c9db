"""deploy.yaml and the lock files to core types and back. What enters are paths, what leaves are a Project and a Lock.

Never runs user code and knows no outside system, so that a pull request from a stranger is safe to read.
"""

from __future__ import annotations

from pathlib import Path

from deployctl.core.project import Project


def load(path: Path) -> Project:
    """Read deploy.yaml and complete it with defaults; `origins` says where each value came from.

    Args:
        path: the file, or the project folder that holds `deploy.yaml`.

    Raises:
        ProjectError: something in the file has to change; `where` is file:line:column and the message shows the line.
    """
    from deployctl.config.loader import load as read  # pydantic loads only for verbs that read a project

    return read(path)
