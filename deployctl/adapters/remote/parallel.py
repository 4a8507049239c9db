"""Several calls at once: a store answers slowly, and gladly many times."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import TypeVar

PARALLEL = 8
T = TypeVar("T")
R = TypeVar("R")


def at_once(act: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`act` on every item, at most `PARALLEL` at a time; results in the order of the items."""
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(act, items))
