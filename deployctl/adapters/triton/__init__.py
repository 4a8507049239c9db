"""Real Triton servers on this machine, from the `nvidia-pytriton` wheel: what enters is a repository folder, what leaves is a server that answers.

Refuses to know bundles, releases and policies.
"""

from deployctl.adapters.triton.api import TritonApi
from deployctl.adapters.triton.install import Installation, ServerCommand
from deployctl.adapters.triton.launcher import TritonLauncher, TritonServer, failure_reason

__all__ = ["Installation", "ServerCommand", "TritonApi", "TritonLauncher", "TritonServer", "failure_reason"]
