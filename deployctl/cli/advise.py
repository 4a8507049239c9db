"""`deployctl advise`: words and flags."""

from __future__ import annotations

import time
from pathlib import Path

import click

from deployctl.cli._advise import table
from deployctl.cli._console import ConsoleProgress, emit, output_option
from deployctl.cli._setup import Duration, Rate


@click.command()
@click.option("--prometheus", "url", required=True, metavar="URL", help="Base address of the Prometheus that scrapes Triton.")
@click.option("--slo", "slo_s", required=True, type=Duration(positive=True), metavar="TIME", help="Latency that was promised, such as 100ms.")
@click.option("--window", "window_s", type=Duration(positive=True), default="24h", show_default=True, metavar="TIME", help="How far back to look.")
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
@click.option(
    "--capacity", "capacity_rps", type=Rate(positive=True), metavar="RATE", help="What one replica serves, such as 40/s; default: estimated."
)
@click.option(
    "-n",
    "--namespace",
    metavar="NS",
    help="Of the objects to apply, and where --context looks; default: that of the HPA in --hpa, else `default`.",
)
@click.option("--step", "step_s", type=Duration(positive=True), default="15s", show_default=True, metavar="TIME", help="Distance of samples.")
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
    namespace: str | None,
    step_s: float,
    yaml_file: Path | None,
    output: str,
) -> None:
    """Read an existing Triton's metrics: what its scaling missed and cost, and what would have been better.

    Reads only. The objects it prints are standard ones: Prometheus recording rules and an HPA.
    """
    from deployctl import wiring
    from deployctl.config import files
    from deployctl.core import kube_names
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
        files.replace(yaml_file, kube_names.yaml_documents(document["objects"]).encode())
        progress.note(f"wrote {yaml_file}")
    emit(document, output, lambda: table(document, str(yaml_file) if yaml_file else None))
