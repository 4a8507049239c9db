"""What the guides show is true: every YAML block is a valid deploy.yaml, every console block does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import textscript

from deployctl.config.loader import project_from
from deployctl.config.platform import platform_from
from deployctl.config.tree import parse

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
CHECKED = ["configuration.md"]
FILES = [*CHECKED, "compress.md"]


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (GUIDES / name).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", FILES)
def test_every_file_in_a_guide_is_accepted(name, tmp_path):
    found = blocks(name, "yaml")
    assert found
    (tmp_path / "my_model.py").touch()
    (tmp_path / "samples.jsonl").write_text('{"text": "a sentence"}\n')
    for text in found:
        project_from(parse(text.encode(), "deploy.yaml"), tmp_path)


def test_every_platform_in_the_guide_is_accepted(tmp_path):
    found = blocks("platform.md", "yaml")
    assert len(found) >= 3
    for text in found:
        platform_from(parse(text.encode(), "platform.yaml"), tmp_path)


@pytest.mark.parametrize("name", CHECKED)
def test_every_command_in_a_guide_does_what_it_says(name, tmp_path):
    found = blocks(name, "console")
    assert found
    folder = tmp_path / "work"
    folder.mkdir()
    textscript.play(textscript.parse("-- run --\n" + "".join(found)), folder)


HEAD = 'version: 1\nmodel: {source: "onnx:model.onnx"}\nslo: {latency: {p99: 100ms}}\ntraffic: {rate: 40/s}\n'


@pytest.mark.parametrize("name", ["gitops.md", "observability.md"])
def test_every_environment_in_a_guide_is_accepted(name, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    found = blocks(name, "yaml")
    assert found
    for text in found:
        text = text.replace("sha256:…", f"sha256:{'0' * 64}").replace(
            "    on: kubernetes\n", "    on: kubernetes\n    pool: gpu\n", "pool:" not in text
        )
        assert project_from(parse((HEAD + text).encode(), "deploy.yaml"), tmp_path).environment("prod")
