"""`deployctl advise`: words and flags."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import click

from deployctl.cli._console import ConsoleProgress, columns, emit, output_option
from deployctl.cli._setup import Duration, Rate


@click.command()
@click.option("--prometheus", "url", required=True, metavar="URL", help="Base address of the Prometheus that scrapes Triton.")
@click.option("--slo", "slo_s", required=True, type=Duration(), metavar="TIME", help="Latency that was promised, such as 100ms.")
@click.option("--window", "window_s", type=Duration(), default="24h", show_default=True, metavar="TIME", help="How far back to look.")
@click.option("--model", metavar="NAME", help="Triton model; for an ensemble, the ensemble.")
@click.option(
    "--hpa",
    "manifests",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Present HPA or ScaledObject, and other manifests to look at.",
)
@click.option(
    "--context", metavar="NAME", help="Kubeconfig context: read the present HPA or ScaledObject and its Deployment there, in place of --hpa."
)
@click.option("--deployment", metavar="NAME", help="With --context: which one; default: the only one that runs Triton.")
@click.option(
    "--start-up",
    "start_up_s",
    type=Duration(),
    default="60s",
    show_default=True,
    metavar="TIME",
    help="From asking for a replica to its first answer.",
)
@click.option("--capacity", "capacity_rps", type=Rate(), metavar="RATE", help="What one replica serves, such as 40/s; default: estimated.")
@click.option("-n", "--namespace", metavar="NS", default="default", show_default=True, help="Of the objects to apply, and where --context looks.")
@click.option("--step", "step_s", type=Duration(), default="15s", show_default=True, metavar="TIME", help="Distance of samples.")
@click.option("--yaml", "yaml_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the objects to apply.")
@output_option
def advise(
    url: str,
    slo_s: float,
    window_s: float,
    model: str | None,
    manifests: tuple[Path, ...],
    context: str | None,
    deployment: str | None,
    start_up_s: float,
    capacity_rps: float | None,
    namespace: str,
    step_s: float,
    yaml_file: Path | None,
    output: str,
) -> None:
    """Read an existing Triton's metrics: what its scaling missed and cost, and what would have been better.

    Reads only. The objects it prints are standard ones: Prometheus recording rules and an HPA.
    """
    from deployctl import wiring
    from deployctl.config import files
    from deployctl.flows.advise import Asked
    from deployctl.flows.advise import advise as flow

    if deployment is not None and context is None:
        raise click.UsageError("--deployment needs --context, the cluster to look in")
    if context is not None and manifests:
        raise click.UsageError("the present autoscaler comes from --context or from --hpa, not from both")
    progress = ConsoleProgress()
    cluster = wiring.load(wiring.ADAPTERS["cluster"])(context) if context is not None else None
    source = wiring.load(wiring.ADAPTERS["prometheus"])(url, end_s=time.time(), window_s=window_s, step_s=step_s)
    asked = Asked(
        slo_s=slo_s,
        step_s=step_s,
        model=model,
        namespace=namespace,
        manifests=manifests,
        deployment=deployment,
        start_up_s=start_up_s,
        capacity_rps=capacity_rps,
    )
    document = flow(source, progress, asked, cluster=cluster)
    if yaml_file is not None:
        files.replace(yaml_file, _yaml(document["objects"]).encode())
        progress.note(f"wrote {yaml_file}; the HPA needs a metrics adapter that serves deployctl:wanted_replicas as deployctl_wanted_replicas")
    emit(document, output, lambda: _table(document))


def _yaml(objects: list[dict[str, Any]]) -> str:
    from ruamel.yaml import YAML

    buffer = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.width = 4096
    writer.dump_all(objects, buffer)
    return buffer.getvalue()


def _table(document: dict[str, Any]) -> str:
    past, replay = document["measured"], document["replay"]
    plant = replay["plant"]
    lines = [
        f"{document['model']}: {past.requests:,.0f} requests in {document['window_s'] / 3600:.1f} h"
        f" (metrics known for {document['known_ratio'] * 100:.0f} % of it), peak {past.peak_rps:,.1f}/s",
        f"measured by Triton: {past.replica_hours:,.1f} replica-hours; mean response above the SLO or over 1 % failed in"
        f" {past.windows_missed_ratio * 100:.1f} % of five-minute windows; slowest window {past.largest_mean_response_s * 1000:,.0f} ms",
        f"a replica serves {plant['capacity_rps']:,.1f}/s ({'estimated from busy time' if document['capacity_estimated'] else 'stated'}),"
        f" {plant['start_up_s']:g} s to start",
        "",
    ]
    rows: list[tuple[str, ...]] = [
        (p["policy"], "kept" if p["kept"] else "broken", f"{p['replica_hours']:,.1f}", f"{p['regret']:.2f}x", f"{p['miss_ratio'] * 100:.2f}%",
         f"{(1 - p['windows_ok_ratio']) * 100:.1f}%", f"{p['longest_breach_s']:.0f} s")
        for p in replay["policies"]
    ]  # fmt: skip
    rows.append(("minimum possible", "", f"{replay['bound']['clairvoyant_hours']:,.1f}", "1.00x", "1.00%", "", ""))
    lines.append(columns(rows, ("replayed", "SLO", "replica-hours", "x minimum", "missed", "windows missed", "longest breach")))
    lines += _present(document["present"])
    for finding in document["findings"]:
        lines += ["", f"{finding.severity}: {finding.message} ({finding.name})", f"      {finding.remedy}"]
        lines += [f"      | {line}" for line in finding.fix.splitlines()]
    return (
        "\n".join(lines).rstrip()
        + "\n\nTo apply (--yaml FILE writes them; -o json and -o yaml have them under objects):\n"
        + _summary(document["objects"])
    )


def _present(now: dict[str, Any] | None) -> list[str]:
    if now is None:
        return ["", "no HPA or ScaledObject with a known metric was found (--context, or --hpa FILE): only what was measured stands for the present"]
    error = now["forecast_error_ratio"]
    trust = "not known, since replicas were not scraped" if error is None else f"{error * 100:.0f} % of the replicas it really had"
    return ["", *(f"assumed: {text}" for text in now["assumed"]), f"error of the replay of {now['name']}: {trust}"]


def _summary(objects: list[dict[str, Any]]) -> str:
    return "\n".join(f"  {item['apiVersion']} {item['kind']} {item['metadata']['namespace']}/{item['metadata']['name']}" for item in objects)
