"""down: stop everything that was started for one environment. Records, lock and proofs stay."""

from __future__ import annotations

from deployctl.ports import Progress, Toolbox


def down(tools: Toolbox, progress: Progress) -> bool:
    """Stop; False if nothing ran.

    Args:
        tools: ports.
        progress: talk.
    """
    ran = tools.target.status().alive
    tools.target.down(progress)  # also where nothing seems to run: what a crash left over is cleaned up
    return ran
