"""Answers as values: the parts of an answer that came in pieces enter, one answer leaves. Refuses to know how they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def joined(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Output name -> values: of one piece as they are, of several each output's values in order, flat."""
    if len(pieces) == 1:
        return dict(pieces[0])
    names = dict.fromkeys(name for piece in pieces for name in piece)
    return {name: [value for piece in pieces for value in piece.get(name, [])] for name in names}
