"""`deployctl call`: words and flags; the answer in human terms on stdout."""

from __future__ import annotations

import math
from typing import Any

import click

from deployctl.cli._console import emit, env_option, output_option
from deployctl.cli._setup import Duration, opened
from deployctl.core import words
from deployctl.flows.call import Answer

_SHOWN = 6


@click.command()
@click.argument("text", required=False)
@env_option
@output_option
@click.option("--data", metavar="JSON", help="An input map, in any form that a sample line may have.")
@click.option(
    "--line",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Line of the sample, where neither TEXT nor --data is given.",
)
@click.option("--snippet", type=click.Choice(["curl", "python"]), help="Do not send; print the same request for your own program.")
@click.option("--timeout", "timeout_s", type=Duration(), default="30s", show_default=True, metavar="TIME", help="Longest wait for the answer.")
@click.pass_context
def call(ctx: click.Context, text: str | None, env: str, output: str, data: str | None, line: int, snippet: str | None, timeout_s: float) -> None:
    """Send one request and show the answer and how long it took; without words, a request of the sample."""
    from deployctl.errors import ProjectError
    from deployctl.flows import call as call_flow

    if text is not None and data is not None:
        raise ProjectError("TEXT and --data are two requests", hint="give one of them", code="call-usage")
    project, tools = opened(ctx.obj, env)
    request = call_flow.prepare(project, tools, text=text, data=data, line=line)
    if snippet is not None:
        click.echo(call_flow.snippet(tools, request, snippet))
        return
    answer = call_flow.send(tools, request, timeout_s=timeout_s)
    document = {
        "model": request.model,
        "revision": request.revision,
        "url": request.url,
        "seconds": answer.seconds,
        "pieces": len(answer.pieces_s),
        "first_piece_s": answer.first_s,
        "between_pieces_s": answer.gap_s,
        "measured_at": "client",
        "outputs": answer.outputs,
    }
    emit(document, output, lambda: _table(answer))


def _table(answer: Answer) -> str:
    request = answer.request
    pairs = [(name, _tensor(tensor["data"], tensor["shape"])) for name, tensor in request.inputs.items()]
    pairs.append(("", ""))
    pairs += [(name, _tensor(_flat(value), _shape(value))) for name, value in answer.outputs.items()]
    took = words.seconds(answer.seconds)
    if answer.gap_s is not None:
        took += f" for {len(answer.pieces_s)} pieces, the first after {words.seconds(answer.first_s)}, then one every {words.seconds(answer.gap_s)},"
    foot = f"{took} at the client, {request.model} revision {request.revision} at {request.url}"
    return "\n".join([*words.rows(pairs, indent=""), "", foot])


def _tensor(flat: list[Any], shape: list[int]) -> str:
    """`[1, 384]  0.0231 -0.0412 … (384 numbers)`."""
    shown = " ".join(_value(v) for v in flat[:_SHOWN])
    if len(flat) <= _SHOWN:
        return f"{shape}  {shown}"
    numbers = [v for v in flat if isinstance(v, (int, float)) and not isinstance(v, bool)]
    norm = f", norm {math.sqrt(sum(v * v for v in numbers)):.4g}" if len(numbers) == len(flat) else ""
    return f"{shape}  {shown} …  ({len(flat):,} values{norm})"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:59] + "…")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shape(value: Any) -> list[int]:
    return [len(value), *(_shape(value[0]) if value else [])] if isinstance(value, list) else []


def _flat(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _flat(item)] if isinstance(value, list) else [value]
