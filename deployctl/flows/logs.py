"""logs: lines of replicas, front door and supervisor, with their source in front. Reads only."""

from __future__ import annotations

from collections.abc import Iterator

from deployctl.ports import Toolbox


def logs(tools: Toolbox, *, replica: str | None, component: str | None, since_s: float | None, follow: bool) -> Iterator[str]:
    """Lines, oldest first.

    Args:
        tools: ports.
        replica: only this replica.
        component: only `replica`, `front-door` or `supervisor` lines.
        since_s: Unix time; None is everything that is kept.
        follow: go on as lines come.
    """
    for line in tools.target.logs(replica=replica, since_s=since_s, follow=follow):
        if component is None or line.lstrip("[").startswith(component):
            yield line
