"""Every type that some code reads back through the codec: whatever such a record holds, it comes back equal and with the same text."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import types
import typing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import deployctl
from deployctl.core import codec
from deployctl.core.forecast import Forecast
from deployctl.core.platform import NodePool

PACKAGE = Path(deployctl.__file__).parent
# Functions whose first argument is a type that is read back: the codec's own, and what passes a type on to it.
READERS = {"loads", "from_data", "once", "read", "_read"}
TEXT = st.text("ab é\n", max_size=3)
# Plain pieces, and whole numbers where fractions are meant: those must come back as what they were written as.
PLAIN = {
    str: TEXT,
    int: st.integers(-9, 9),
    bool: st.booleans(),
    float: st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False),
    types.NoneType: st.none(),
    typing.Any: st.none() | TEXT | st.integers(-9, 9),
}


def read_back() -> list[type]:
    """Record types that the package's source names as the first argument of a reader."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if not {"_share", "templates"} & set(path.parts):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                name = isinstance(node, ast.Call) and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
                if name in READERS and node.args and isinstance(node.args[0], ast.Name):
                    module = importlib.import_module(
                        ".".join(("deployctl", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
                    )
                    found.add(getattr(module, node.args[0].id, None))
    return sorted((c for c in found if dataclasses.is_dataclass(c)), key=lambda c: c.__name__)


def values(hint: typing.Any) -> st.SearchStrategy[typing.Any]:
    """Any value of a declared type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(arg) for arg in args])
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=2)
    if origin in (tuple, list) and (origin is list or args[-1] is Ellipsis):
        return st.lists(values(args[0]), max_size=2).map(origin)
    if origin is tuple:
        return st.tuples(*map(values, args))
    if dataclasses.is_dataclass(hint):
        return records(hint)
    return PLAIN[hint]


def records(cls: typing.Any) -> st.SearchStrategy[typing.Any]:
    """Any record of a class, each optional field there and not there."""
    hints = typing.get_type_hints(cls)
    return st.deferred(lambda: st.builds(cls, **{f.name: values(hints[f.name]) for f in dataclasses.fields(cls) if f.init}))


def test_the_types_that_are_read_back_are_found():
    names = {c.__name__ for c in read_back()}
    assert names >= {"Bundle", "Compressed", "Evidence", "Inventory", "Lock", "Plan", "Release", "Span", "StatusFile", "Verdict"}


@pytest.mark.parametrize("cls", read_back(), ids=lambda c: c.__name__)
def test_a_record_comes_back_as_it_was_written(cls):
    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(records(cls))
    def comes_back(record):
        text = codec.dumps(record)
        back = codec.loads(cls, text)
        assert back == record
        assert codec.dumps(back) == text

    comes_back()


def test_what_has_no_default_may_be_none():
    never = Forecast(p50_s=None, p95_s=None, p99_s=None, utilisation_ratio=1.2, throughput_rps=3.0, method="queueing", valid=False)
    assert codec.loads(Forecast, codec.dumps(never)) == never


def test_none_is_written_where_leaving_it_out_would_mean_the_default():
    cpus = NodePool(name="cpus", gpu_resource=None, gpus=0, taint=None)
    assert '"gpu_resource": null' in codec.dumps(cpus)
    assert codec.loads(NodePool, codec.dumps(cpus)) == cpus
