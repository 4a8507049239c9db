"""`deployctl doctor`: flags and words."""

from __future__ import annotations

from pathlib import Path

import click

from deployctl.cli import _console


@click.command()
@_console.env_option
@click.option("--offline", is_flag=True, help="Ask no cluster; look at this machine only.")
@_console.output_option
@click.pass_obj
def doctor(root: Path, env: str, offline: bool, output: str) -> int:
    """Check this machine, each check with a remedy.

    The cluster of the environment has to answer; that of another one is a warning. Ends with 2 when a check fails; warnings do
    not change the exit code.
    """
    from deployctl import wiring
    from deployctl.flows.doctor import doctor as examine

    machine = wiring.load(wiring.ADAPTERS["machine"])()
    findings = examine(
        root,
        machine,
        lambda name: wiring.LazyToolbox(root, name).target.status(),
        env=env,
        offline=offline,
        cluster=wiring.load(wiring.ADAPTERS["cluster"]),
    )
    _console.emit(findings, output, lambda: "\n".join(line for f in findings for line in _lines(f)))
    failed = sum(f.severity == "fail" for f in findings)
    if output == "table":
        warned = sum(f.severity == "warn" for f in findings)
        click.echo(f"\n{len(findings)} checks: {failed} failed, {warned} warning{'' if warned == 1 else 's'}", err=True)
    return 2 if failed else 0


def _lines(finding: object) -> list[str]:
    from deployctl.core.finding import Finding

    assert isinstance(finding, Finding)
    colour = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.severity]
    place = f"{finding.where}: " if finding.where else ""
    first = f"{_console.style(f'{finding.severity:<4}', fg=colour)}  {finding.name:<14} {place}{finding.message}"
    return [first, f"{'':<6}{'':<14} fix: {finding.remedy}"] if finding.remedy else [first]
