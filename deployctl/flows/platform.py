"""platform: the cluster that services run on, planned, made, changed and removed as one Pulumi stack, and looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deployctl.config import catalog
from deployctl.core import codec, cost
from deployctl.core.cost import PoolCost
from deployctl.core.finding import Finding
from deployctl.core.platform import Platform, PlatformInputs
from deployctl.core.stack import Stack, StackOutcome
from deployctl.flows._addons import examine
from deployctl.ports import ClusterReader, Progress, StackEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformView:
    """What `plan` shows: steps of the engine, cost of the pools, and what to know."""

    outcome: StackOutcome
    costs: tuple[PoolCost, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformStatus:
    """What is: outputs of the stack (None where there is none), and what the cluster has."""

    outputs: dict[str, Any] | None
    findings: tuple[Finding, ...]


def stack_of(platform: Platform) -> Stack:
    """The stack of a platform: its name says what it is, so that no service's can be the same."""
    return Stack(name=f"platform-{platform.name}", kind="platform", document=codec.dumps(inputs_of(platform)))


def inputs_of(platform: Platform) -> PlatformInputs:
    """Everything that `infra/platform_stack.py` reads."""
    return PlatformInputs(platform=platform, charts=catalog.charts())


def plan(platform: Platform, engine: StackEngine, progress: Progress) -> PlatformView:
    """What `up` would do, and what it may cost; nothing is changed.

    Raises:
        Refused: the pools may cost more than the budget (`over-budget`).
        DeployctlError: see `StackEngine`.
    """
    notices = cost.check_budget(platform)
    progress.step(f"asking what would change in {platform.name}")
    return PlatformView(outcome=engine.preview(stack_of(platform), progress), costs=cost.of_platform(platform), notices=tuple(notices))


def up(platform: Platform, engine: StackEngine, progress: Progress, ask: Callable[[PlatformView], None]) -> StackOutcome:
    """Plan, ask, and make it so. A run that was killed is finished by the same command.

    `ask` shows the plan, also where nothing changes, and asks only where something does.

    Raises:
        DeployctlError: as `plan`, and whatever `ask` raises when the answer is no.
    """
    view = plan(platform, engine, progress)
    ask(view)
    if view.outcome.steps:
        progress.step(f"making {platform.name}")
    return engine.up(stack_of(platform), progress)


def down(platform: Platform, engine: StackEngine, progress: Progress, ask: Callable[[StackOutcome], None]) -> StackOutcome:
    """Show what goes, ask, and remove everything that the stack made; the bucket with the models stays."""
    stack = stack_of(platform)
    progress.step(f"asking what there is of {platform.name}")
    ask(engine.preview(stack, progress, removal=True))
    progress.step(f"removing {platform.name}")
    outcome = engine.destroy(stack, progress)
    if engine.outputs(stack) is not None:
        engine.forget(stack)
    return outcome


def status(platform: Platform, engine: StackEngine | None, cluster: ClusterReader) -> PlatformStatus:
    """What the stack says and what the cluster has; without an engine, only the cluster is asked."""
    outputs = engine.outputs(stack_of(platform)) if engine else None
    return PlatformStatus(outputs=outputs, findings=tuple(examine(cluster, platform)))
