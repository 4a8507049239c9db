"""Where reports of load tests lie: a document enters, files leave, whole or not at all; the last ones are kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployctl.config import files
from deployctl.core import codec
from deployctl.core.verdict import Verdict
from deployctl.ports import LoadResult
from deployctl.report.load_page import render

KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was found and where it lies; `result` is None where a former test was reused."""

    verdict: Verdict
    result: LoadResult | None
    document: dict[str, Any]
    html: Path
    json: Path


def save(data: dict[str, Any], result: LoadResult, verdict: Verdict, folder: Path, *, copy: Path | None) -> Outcome:
    """Write page and document below `folder`, a copy of the page where one is wanted, and drop the oldest beyond KEPT."""
    stem = "loadtest-" + datetime.fromtimestamp(result.started_at_s, UTC).strftime("%Y%m%dT%H%M%S%fZ")
    page = render(data).encode()
    files.replace(folder / f"{stem}.json", (json.dumps({"schema_version": 1, **data}, indent=1) + "\n").encode())
    files.replace(folder / f"{stem}.html", page)
    if copy is not None:
        files.replace(copy, page)
    for suffix in ("html", "json"):
        for old in sorted(folder.glob(f"loadtest-*.{suffix}"))[:-KEPT]:
            old.unlink(missing_ok=True)
    return Outcome(verdict=verdict, result=result, document=data, html=copy or folder / f"{stem}.html", json=folder / f"{stem}.json")


def former(key: str, folder: Path, *, copy: Path | None) -> Outcome | None:
    """The newest passed test with this key, whose report is still here; its page is copied where that is wanted."""
    for file in sorted(folder.glob("loadtest-*.json"), reverse=True):
        try:
            data = json.loads(file.read_text())
            if data.get("key") != key or not file.with_suffix(".html").exists():
                continue
            verdict = codec.from_data(Verdict, data["verdict"])
        except (ValueError, KeyError, TypeError, OSError):
            continue  # a damaged or older report proves nothing
        if verdict.result == "PASS":
            if copy is not None:
                files.replace(copy, file.with_suffix(".html").read_bytes())
            return Outcome(verdict=verdict, result=None, document=data, html=file.with_suffix(".html"), json=file)
    return None
