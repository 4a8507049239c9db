"""What people and editors read: help, reference pages, schema and error texts, whole. `make golden` rewrites them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployctl.cli import VERBS, _reference
from deployctl.cli.main import deployctl, run
from deployctl.config import schema

ROOT = Path(__file__).resolve().parents[2]
HEAD = 'model: {source: "triton:."}\nslo: {latency: {p99: 100ms}}\ntraffic: {rate: 40/s}\n'

BAD_FILES = {
    "unknown-key": HEAD.replace("latency", "latncy"),
    "misplaced-key": HEAD + "limits: {replicas: 3}\n",
    "syntax": HEAD.replace("}\n", "\n", 1),
    "twice": HEAD + "slo: {latency: {p99: 200ms}}\n",
    "missing-key": HEAD.replace("traffic", "# traffic"),
    "missing-file": HEAD.replace("triton:.", "onnx:none.onnx"),
    "missing-module": HEAD.replace("triton:.", "python:no_such_module:build"),
    "unit": HEAD.replace("100ms", "100"),
    "choice": HEAD.replace("40/s", "40/s, arrivals: poison"),
    "anchor": "a: &a 1\n",
    "version": HEAD + "version: 2\n",
    "long-line": HEAD + f"compress: {{try: [{', '.join('x' * 20 for _ in range(10))}, 'a b']}}\n",
    "empty-value": HEAD + "name:\n",
    "empty-file": "",
    "two-problems": HEAD.replace("100ms", "100").replace("40/s", "40"),
}


def compare(path: Path, text: str, request: pytest.FixtureRequest) -> None:
    """The committed page is what the program makes now; with --snapshot-update it is rewritten."""
    if request.config.getoption("update_snapshots", default=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    assert path.exists(), f"make golden   (writes {path.name})"
    assert path.read_text("utf-8") == text, f"{path.name} is out of date: make golden"


@pytest.mark.parametrize("page", ["deploy_yaml", "platform_yaml", "error_codes", "verbs"])
def test_reference_pages(page, request):
    name = page.replace("_", "-") + ".md"
    compare(ROOT / "docs" / "reference" / name, getattr(_reference, page)(), request)


def test_schema(request):
    compare(Path(__file__).parent / "words" / schema.FILE_NAME, schema.text(), request)


def test_platform_schema(request):
    compare(Path(__file__).parent / "words" / schema.PLATFORM_FILE_NAME, schema.text(schema.platform_document()), request)


def test_first_help(request):
    text = deployctl.get_help(_reference.bare_context(deployctl, "deployctl"))
    compare(Path(__file__).parent / "words" / "help.txt", text + "\n", request)


@pytest.mark.parametrize("name", list(BAD_FILES))
def test_error_texts(name, tmp_path, request, capsys, monkeypatch):
    (tmp_path / "deploy.yaml").write_text(BAD_FILES[name])
    monkeypatch.setattr("sys.argv", ["deployctl"])
    assert run(["-C", str(tmp_path), "config", "show"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    cause, hint = err.splitlines()[0], next(i for i, line in enumerate(err.splitlines()) if line.startswith("hint: "))
    assert cause.startswith("error: ")
    assert hint < 5
    compare(Path(__file__).parent / "words" / f"{name}.txt", err, request)


def test_every_verb_has_a_line_of_help_that_fits():
    assert all(len(text) <= 80 and text.endswith(".") for _, text in VERBS.values())
