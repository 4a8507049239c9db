"""Compression methods by name, as text: loading one loads its libraries.

A method is `(Artifact, Settings, Calibration) -> (Artifact, Report)`. `fp32` makes the ONNX graph that every other method starts
from; a variant is one method or a recipe of several. Adding one is a file here and a line in METHODS; a package of your own may
offer one under the entry point group `deployctl.methods`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata

from deployctl.compress.workbench import Method
from deployctl.errors import ProjectError

METHODS: dict[str, str] = {
    "fp32": "deployctl.compress.methods.fp32:export",
    "int8-dynamic": "deployctl.compress.methods.int8_dynamic:quantize",
    "int8-weights": "deployctl.compress.methods.int8_weights:quantize",
    "int8-static": "deployctl.compress.methods.int8_static:quantize",
    "low-rank": "deployctl.compress.methods.low_rank:factor",
    "prune": "deployctl.compress.methods.prune:prune",
    "distill": "deployctl.compress.methods.distill:distill",
    "fp16": "deployctl.compress.methods.fp16:convert",
}
BASE = "fp32"
# What they leave is no float32 graph any more, so that nothing can follow them in a recipe.
LAST = frozenset({"int8-dynamic", "int8-weights", "int8-static", "fp16"})
# They start from the user's module, which no other step changes, so they can follow none.
FIRST = frozenset({"distill"})

Recipe = list[tuple[str, Method]]


def recipe(variant: str) -> Recipe:
    """The steps after the fp32 graph that a variant's name says, joined by `+`: `prune+int8-dynamic`; none for `fp32`.

    Raises:
        ProjectError: there is no such method (`method-unknown`), or one stands where it cannot (`recipe-order`).
    """
    if variant == BASE:
        return []
    names = variant.split("+")
    why = _wrong_order(names)
    if why:
        raise ProjectError(
            f"{variant!r} is no recipe",
            why=why,
            where="deploy.yaml: compress.try",
            hint="shapes first, numbers last: prune+int8-dynamic, low-rank+fp16",
            code="recipe-order",
        )
    return [(name, load(name)) for name in names]


def _wrong_order(names: list[str]) -> str | None:
    early = [n for n in names[:-1] if n in LAST]
    late = [n for n in names[1:] if n in FIRST]
    if early:
        return f"nothing can follow {early[0]}"
    if BASE in names:
        return f"every recipe begins with {BASE} by itself"
    if len(set(names)) < len(names):
        return "a step stands twice"
    return f"{late[0]} begins with the whole model and can follow nothing" if late else None


def load(name: str) -> Method:
    """The method of that name, built in or from an entry point.

    Raises:
        ProjectError: there is none (`method-unknown`).
    """
    address = METHODS.get(name)
    if address is None:
        found = {e.name: e.value for e in importlib.metadata.entry_points(group="deployctl.methods")}
        address = found.get(name)
        if address is None:
            known = [*METHODS, *sorted(found)]
            close = difflib.get_close_matches(name, known, n=1)
            raise ProjectError(
                f"there is no compression method {name!r}" + (f"; did you mean {close[0]}?" if close else ""),
                where="deploy.yaml: compress.try",
                hint=f"name some of: {', '.join(known)}",
                code="method-unknown",
            )
    module, attribute = address.split(":")
    method: Method = getattr(importlib.import_module(module), attribute)
    return method
