"""The words that describe an existing model in deploy.yaml: what enters is what was read of it, what leaves are template words."""

from __future__ import annotations

import json
from pathlib import Path

from deployctl.core.artifact import TensorSpec
from deployctl.core.repocheck import RepositoryModel, entry

_NO_SAMPLE = "  # sample: samples.jsonl          # real requests, one input map a line; without it, zeros are sent"


def tokenizer_beside(source: Path, inputs: tuple[TensorSpec, ...]) -> Path | None:
    """The tokenizer.json beside an ONNX file whose inputs are token ids; None where either is missing."""
    file = source.parent / "tokenizer.json"
    return file if {"input_ids", "attention_mask"} <= {t.name for t in inputs} and file.is_file() else None


def onnx_words(root: Path, source: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> dict[str, str]:
    """SOURCE, TENSORS and DETAILS of an ONNX file."""
    tokenizer = tokenizer_beside(source, inputs)
    details = [_NO_SAMPLE]
    if tokenizer is not None:
        details = ["  sample: samples.jsonl            # real requests, one a line", f"  tokenizer: {_quoted(_relative(tokenizer, root))}"]
        if outputs and len(outputs[0].shape) == 2:
            details.append("  pooling: mean                    # one vector a text instead of one a token")
    return {
        "SOURCE": _quoted(f"onnx:{_relative(source, root)}"),
        "TENSORS": "\n".join([*_tensors("input", inputs), *_tensors("output", outputs)]),
        "DETAILS": "\n".join(details) + "\n",
    }


def repository_words(root: Path, source: Path, models: tuple[RepositoryModel, ...]) -> dict[str, str]:
    """SOURCE, TENSORS and DETAILS of a Triton repository."""
    chosen = entry(models)
    shown = next((m for m in models if m.name == chosen), None)
    lines = [
        _plain(f"#   model {m.name}: {m.backend or '?'}, batches up to {m.max_batch}, versions {', '.join(m.versions) or 'none'}") for m in models
    ]
    if shown is not None:
        lines += [f"# Requests go to {shown.name}:", *_tensors("input", shown.inputs), *_tensors("output", shown.outputs)]
    return {"SOURCE": _quoted(f"triton:{_relative(source, root)}"), "TENSORS": "\n".join(lines), "DETAILS": f"{_NO_SAMPLE}\n"}


def _relative(path: Path, root: Path) -> str:
    inside = path.resolve()
    return str(inside.relative_to(root.resolve())) if inside.is_relative_to(root.resolve()) else str(inside)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a YAML string, whatever a file name holds


def _plain(line: str) -> str:
    """One comment line: names out of a file may hold line breaks, and a comment must not become configuration."""
    return "".join(c if c.isprintable() else "?" for c in line)


def _tensors(heading: str, rows: tuple[TensorSpec, ...]) -> list[str]:
    return [_plain(f"#   {heading} {t.name}: {t.dtype} [{', '.join('?' if d < 0 else str(d) for d in t.shape)}]") for t in rows]
