"""call: one request to the running service in human terms, from words, JSON or the sample. Reads only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from deployctl.core import sample
from deployctl.core.answer import joined
from deployctl.core.bundle import Bundle
from deployctl.core.project import Project
from deployctl.core.release import Release
from deployctl.errors import NotFound, ProjectError
from deployctl.flows._gather import known_bundle, sample_lines
from deployctl.ports import TargetStatus, Toolbox

_ENGINE_TEXT = "text_input"  # what vLLM's backend and its peers call the prompt; their other inputs may be left out

_OUTPUTS = ('    for output in json.load(reply)["outputs"]:', '        print(output["name"], output["shape"], output["data"][:8])')
_PIECES = (
    "    for line in reply:",
    '        if line.startswith(b"data:"):',
    "            piece = json.loads(line[5:])",
    '            if "error" in piece:',
    '                raise SystemExit(piece["error"])',
    "            print(piece, flush=True)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, ready to be sent or written down."""

    url: str
    grpc_url: str
    model: str
    revision: int
    bundle: Bundle
    inputs: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        request: what was sent.
        outputs: nested lists by output name; of an answer in pieces all of them in order, flat.
        seconds: to the end of the answer, here at the client.
        pieces_s: when each piece came, since the request was sent; one for most models.
    """

    request: Request
    outputs: dict[str, Any]
    seconds: float
    pieces_s: tuple[float, ...]

    @property
    def first_s(self) -> float:
        """Time to the first piece (of a language model: to the first token)."""
        return self.pieces_s[0] if self.pieces_s else self.seconds

    @property
    def gap_s(self) -> float | None:
        """Mean time from one piece to the next; None where there is only one."""
        count = len(self.pieces_s)
        return (self.pieces_s[-1] - self.pieces_s[0]) / (count - 1) if count > 1 else None


def prepare(project: Project, tools: Toolbox, *, text: str | None, data: str | None, line: int = 1) -> Request:
    """Build the request.

    Args:
        project: deploy.yaml, completed.
        tools: ports.
        text: a text, for a model that takes one.
        data: a JSON input map, in any form that a sample line may have.
        line: line of the sample, counted from 1, where neither is given.

    Raises:
        NotFound: nothing runs (`not-running`), or the sample has no such line (`sample-line-not-found`).
        ProjectError: a text for a model that takes none (`call-usage`); ModelError: the data does not fit (`sample-invalid`).
    """
    status, release = _running(project, tools)
    bundle = known_bundle(tools, release.plan.bundle)
    if bundle is None:
        raise NotFound("the bundle that serves is not on this machine any more", hint="deployctl up", code="bundle-not-found")
    return Request(
        url=status.url or "",
        grpc_url=status.grpc_url or "",
        model=bundle.entry,
        revision=release.revision,
        bundle=bundle,
        inputs=_inputs(bundle, tools, text, data, line),
    )


def send(tools: Toolbox, request: Request, *, timeout_s: float) -> Answer:
    """Send it through the front door, or on a cluster through a port-forward, and time it.

    Args:
        tools: ports.
        request: as `prepare` built it.
        timeout_s: longest wait for the answer.

    Raises:
        ModelError: the service refused or failed it (`inference-failed`); ClusterError: no answer (`server-unreachable`), or no way in
            from this machine (`not-reachable`).
    """
    with tools.target.reach() as url:
        client = tools.client(url)
        begun_s = tools.clock.monotonic_s()
        pieces = client.pieces(request.model, {"inputs": request.inputs}, timeout_s=timeout_s)
        took_s = tools.clock.monotonic_s() - begun_s
        return Answer(request=request, outputs=joined([p.outputs for p in pieces]), seconds=took_s, pieces_s=tuple(p.after_s for p in pieces))


def _running(project: Project, tools: Toolbox) -> tuple[TargetStatus, Release]:
    status = tools.target.status()
    if status.url is None or status.revision_serving is None:
        raise NotFound(f"{project.name} does not serve", why=f"{status.phase}: {status.message}", hint="deployctl up", code="not-running")
    return status, tools.records.history().revision(status.revision_serving)


def _inputs(bundle: Bundle, tools: Toolbox, text: str | None, data: str | None, line: int) -> dict[str, dict[str, Any]]:
    if text is None and data is None:
        lines = sample_lines(tools, bundle)
        if not 1 <= line <= len(lines):
            raise NotFound(f"the sample has no line {line}", why=f"it has {len(lines)}", hint="deployctl call --line 1", code="sample-line-not-found")
        chosen: dict[str, dict[str, Any]] = lines[line - 1]["inputs"]
        return chosen
    batched = _batched(bundle, tools)
    if data is not None:
        return sample.inputs_of(data, bundle.inputs, batched=batched, where="--data")
    texts = [t for t in bundle.inputs if t.dtype == "BYTES" and (len(bundle.inputs) == 1 or t.name == _ENGINE_TEXT)]
    if not texts:
        needed = ", ".join(f"{t.name} ({t.dtype} {list(t.shape)})" for t in bundle.inputs)
        raise ProjectError(
            f"{bundle.entry} takes no text",
            why=f"its inputs: {needed}",
            hint="deployctl call --data '{…}'   (or without words: the sample)",
            code="call-usage",
        )
    shape = [1, *(1 if d < 0 else d for d in texts[0].shape)] if batched else [1 if d < 0 else d for d in texts[0].shape]
    return {texts[0].name: {"dtype": "BYTES", "shape": shape, "data": [text]}}


def _batched(bundle: Bundle, tools: Toolbox) -> bool:
    """Whether requests carry a leading batch dimension, as the packaged sample shows it."""
    lines = sample_lines(tools, bundle)
    for spec in bundle.inputs:
        if lines and spec.name in lines[0]["inputs"]:
            return len(lines[0]["inputs"][spec.name]["shape"]) > len(spec.shape)
    return bundle.model(bundle.entry).serving.max_batch >= 1


def snippet(tools: Toolbox, request: Request, language: str) -> str:
    """The same request as a person's own program would send it: `curl` or `python`; nothing is sent.

    A model that answers in pieces is asked over Triton's generate extension, which answers in server-sent events.
    """
    pieces = tools.repository.in_pieces(request.bundle)
    tensors = [{"name": n, "datatype": t["dtype"], "shape": t["shape"], "data": t["data"]} for n, t in request.inputs.items()]
    body = sample.generate_body(request.inputs) if pieces else {"inputs": tensors}
    address = f"{request.url.rstrip('/')}/v2/models/{request.model}/{'generate_stream' if pieces else 'infer'}"
    if language == "curl":
        quoted = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
        return f"curl {'-sN' if pieces else '-s'} {address} -H 'Content-Type: application/json' -d '{quoted}'"
    return "\n".join(
        [
            "import json, urllib.request",
            "",
            f"body = {body!r}",
            f'request = urllib.request.Request("{address}", json.dumps(body).encode(), {{"Content-Type": "application/json"}})',
            "with urllib.request.urlopen(request, timeout=30) as reply:",
            *(_PIECES if pieces else _OUTPUTS),
        ]
    )
