"""Pulumi behind the StackEngine port: `engine` here, `child` in a process of its own for each run."""

from deployctl.adapters.pulumi.engine import PulumiEngine

__all__ = ["PulumiEngine"]
