"""Repeated blocks of a torch module, and the same module with fewer of them: what enters and leaves are modules.

Refuses to know training, and the names that model families give to their layers: what is recognised is a list of equal blocks.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A run of equal blocks: `count` neighbours from place `start` on in the list at `path` (as `get_submodule` takes it)."""

    path: str
    start: int
    count: int

    def places(self, kept: Sequence[int]) -> list[int]:
        """Places in the list of the blocks that stay, given by their number in the run."""
        return [self.start + k for k in kept]


def find(module: Any) -> Stack | None:
    """The run of equal blocks that holds most of the module's weights; None where nothing is repeated.

    Looked for in every `ModuleList` and `Sequential`. Blocks are equal where class, names and shapes of their parameters are; so a
    first block of another form, as some models have, is not part of the run and stays.
    """
    import torch

    best, most = None, 0
    for path, inner in module.named_modules():
        if not isinstance(inner, (torch.nn.ModuleList, torch.nn.Sequential)):
            continue
        start = 0
        for form, members in itertools.groupby(inner, key=_form):
            count = len(list(members))
            weights = count * sum(shape.numel() for _, shape in form[1])
            if count > 1 and weights > most:
                best, most = Stack(path=path, start=start, count=count), weights
            start += count
    return best


def _form(block: Any) -> tuple[type, tuple[tuple[str, Any], ...]]:
    return type(block), tuple((name, p.shape) for name, p in block.named_parameters())


def chosen(count: int, ratio: float) -> list[int]:
    """Which of `count` blocks stay: at least one, at most all but one, spread evenly from the first to the last.

    For half of twelve these are 0, 2, 4, 7, 9, 11, the layers from which DistilBERT begins (Sanh et al. 2019, arXiv 1910.01108).
    """
    kept = min(max(round(count * ratio), 1), count - 1)
    return [int(k) for k in np.linspace(0, count - 1, kept).round()] if kept > 1 else [0]


def shortened(module: Any, stack: Stack, kept: Sequence[int]) -> Any:
    """A copy of the module, weights included, whose run has only the `kept` blocks."""
    student = copy.deepcopy(module)
    blocks = student.get_submodule(stack.path)
    stay = set(stack.places(kept))
    for place in reversed(range(stack.start, stack.start + stack.count)):
        if place not in stay:
            del blocks[place]
    return student
