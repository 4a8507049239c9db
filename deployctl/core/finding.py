"""Something a person should know: what status, doctor, validation and lint report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check's result: `remedy` is a sentence or a command and is never empty for warn and fail; `fix` is YAML to merge, where it is so plain."""

    name: str
    severity: Literal["ok", "warn", "fail"]
    message: str
    remedy: str = ""
    where: str | None = None
    fix: str = ""
