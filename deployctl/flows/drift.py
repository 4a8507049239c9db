"""drift: what runs otherwise than the newest release says, and who made it so. Reads only."""

from __future__ import annotations

from deployctl.core.kube_drift import Difference
from deployctl.ports import Toolbox


def drift(tools: Toolbox) -> list[Difference]:
    """Every difference; what an autoscaler owns is none.

    Args:
        tools: ports.

    Raises:
        NotFound: nothing runs (`not-running`).
    """
    return tools.target.drift()
