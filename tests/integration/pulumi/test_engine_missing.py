"""Without Pulumi's engine, or with one that is too old, the command that installs it is named; nothing is written."""

import stat
import sys

import pytest

from deployctl.adapters.pulumi import PulumiEngine
from deployctl.adapters.pulumi.engine import INSTALL
from deployctl.cli.main import run
from deployctl.core.stack import Stack
from deployctl.errors import MachineError
from deployctl.flows._gather import Silent

STACK = Stack(name="s", kind="platform", document="{}")


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    """A PATH with one folder of the test's, and a home without Pulumi."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def test_no_engine(nothing_installed, tmp_path):
    with pytest.raises(MachineError) as caught:
        PulumiEngine(tmp_path / "work").preview(STACK, Silent())
    assert caught.value.code == "pulumi-missing"
    assert INSTALL in caught.value.hint
    assert not (tmp_path / "work").exists()


def test_an_old_engine(nothing_installed, tmp_path):
    program = nothing_installed / "pulumi"
    program.write_text(f"#!{sys.executable}\nprint('v3.100.0')\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(MachineError) as caught:
        PulumiEngine(tmp_path / "work").up(STACK, Silent())
    assert caught.value.code == "pulumi-too-old"
    assert "3.100.0" in caught.value.message


def test_the_command_line_says_so_in_the_first_lines(nothing_installed, tmp_path, capsys):
    (tmp_path / "platform.yaml").write_text("cluster: {context: prod}\npools: {gpu-l4: {device: L4}}\n")
    assert run(["-C", str(tmp_path), "platform", "plan"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("error: the pulumi engine is not installed") for line in lines[:5])
    assert any("PulumiCommand.install()" in line for line in lines)


def test_a_broken_budget_stops_before_the_engine_is_asked(nothing_installed, tmp_path, capsys):
    pools = "pools: {g: {instance: m, device: L4, cpu: 2, memory: 8GiB, nodes: ..9}}\n"
    prices = "budget: 10 USD/day\npricing: {m: {on_demand: 1 USD/h, as_of: 2026-11-01}}\n"
    (tmp_path / "platform.yaml").write_text(pools + prices)
    assert run(["-C", str(tmp_path), "platform", "up", "--yes"]) == 5
    assert "the pools may cost 216.00 USD/day" in capsys.readouterr().err
