"""catalog.toml: hardware facts and dated prices of rented machines, and the charts of add-ons. What enters is a name, what leaves are core types."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Any

from deployctl.core.platform import GIB, Chart, InstanceType, Price

_FILE = Path(__file__).with_name("catalog.toml")


@functools.cache
def _catalog() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


@functools.cache
def instances() -> dict[str, InstanceType]:
    """Every known machine by name."""
    return {
        name: InstanceType(
            name=name,
            cloud=row["cloud"],
            device=row["device"],
            gpus=row["gpus"],
            cpu=float(row["cpu"]),
            memory_bytes=row["memory_gib"] * GIB,
            source=row["source"],
            as_of=row["as_of"],
        )
        for name, row in _catalog()["instances"].items()
    }


def price(instance: str, region: str | None) -> Price | None:
    """The dated price of a machine in a region; None where nobody said one. A price is never carried over to another region."""
    for row in _catalog()["prices"]:
        if row["instance"] == instance and row["region"] == region:
            return Price(
                instance=instance,
                on_demand_per_hour=row.get("on_demand_per_hour"),
                spot_per_hour=row.get("spot_per_hour"),
                currency=row["currency"],
                source=row["source"],
                as_of=row["as_of"],
            )
    return None


def charts() -> dict[str, Chart]:
    """The chart of every add-on that can be installed."""
    return {name: Chart(**row) for name, row in _catalog()["charts"].items()}
