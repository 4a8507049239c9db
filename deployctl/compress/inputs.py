"""Sample lines as model inputs: texts through the tokenizer, numbers as they are; rows of one size joined into a batch.

What is fed here has the shapes that the server will feed: a text is cut at the model's maximum and padded to the next step.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from deployctl.core import sample as samples
from deployctl.core.artifact import TensorSpec
from deployctl.core.bundle import SizeRule
from deployctl.core.compressed import TEXT_INPUT
from deployctl.errors import ModelError

STEP_TOKENS = 16
_DEFAULT_MAX_TOKENS = 512
MOST_ROWS = 10_000

Arrays = dict[str, npt.NDArray[Any]]
T = TypeVar("T")


class Rows(Protocol):
    """The sample, row by row."""

    rule: SizeRule
    sizes: list[int]
    lines: list[dict[str, Any]]
    pads: bool

    def feed(self, rows: Sequence[int], *, size: int | None = None) -> Arrays:
        """The named rows as one batch, padded to `size` where rows can be padded (else they must have one shape)."""
        ...

    def stretched(self, batch: int, size: int) -> Arrays:
        """A batch of that size made of sample content, for measuring time."""
        ...

    def only(self, chosen: Sequence[int]) -> Rows:
        """The chosen rows alone."""
        ...


def read_lines(path: Path) -> list[tuple[str, str]]:
    """(line, `file:number`) of every line that is not blank.

    Raises:
        ModelError: no such file, no text in UTF-8, or no line (`sample-invalid`).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"the sample {path.name} cannot be read",
            why=str(error),
            where=str(path),
            hint="correct model.sample in deploy.yaml",
            code="sample-invalid",
        ) from error
    found = [(line, f"{path.name}:{n}") for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not found:
        raise ModelError(
            f"the sample {path.name} is empty",
            where=str(path),
            hint="write one example request a line; some 50 real ones are a good sample",
            code="sample-invalid",
        )
    return found[:MOST_ROWS]


@dataclass(kw_only=True)
class TextRows:
    """Texts, their tokens, and the bucket of each."""

    rule: SizeRule
    sizes: list[int]
    lines: list[dict[str, Any]]
    tokens: list[dict[str, list[int]]]
    inputs: tuple[TensorSpec, ...]
    pad_ids: dict[str, int]
    pads: bool = True

    def feed(self, rows: Sequence[int], *, size: int | None = None) -> Arrays:
        """Rows padded at the right to `size`, or to the longest bucket among them."""
        width = size or max(self.sizes[r] for r in rows)
        return {spec.name: np.stack([self._padded(self.tokens[r], spec, width) for r in rows]) for spec in self.inputs}

    def _padded(self, row: dict[str, list[int]], spec: TensorSpec, width: int) -> npt.NDArray[Any]:
        values = row[spec.name][:width]
        filler = [self.pad_ids[spec.name]] * (width - len(values))
        return np.array(values + filler, dtype=samples.NUMPY_NAMES[spec.dtype])

    def stretched(self, batch: int, size: int) -> Arrays:
        """The longest text, repeated until every place of every row holds a real token."""
        longest = max(range(len(self.tokens)), key=lambda r: len(self.tokens[r]["attention_mask"]))
        row = {name: (values * (size // len(values) + 1))[:size] for name, values in self.tokens[longest].items()}
        return {s.name: np.stack([self._padded(row, s, size)] * batch) for s in self.inputs}

    def only(self, chosen: Sequence[int]) -> TextRows:
        """The chosen rows alone."""
        return dataclasses.replace(self, sizes=_at(self.sizes, chosen), lines=_at(self.lines, chosen), tokens=_at(self.tokens, chosen))


@dataclass(kw_only=True)
class NumberRows:
    """Input maps; rows can only share a batch if their shapes are equal."""

    rule: SizeRule
    sizes: list[int]
    lines: list[dict[str, Any]]
    arrays: list[Arrays]
    batched: bool
    pads: bool = False

    def feed(self, rows: Sequence[int], *, size: int | None = None) -> Arrays:
        """Rows of one shape, joined along the batch."""
        if not self.batched:
            return self.arrays[rows[0]]
        return {name: np.concatenate([self.arrays[r][name] for r in rows]) for name in self.arrays[0]}

    def stretched(self, batch: int, size: int) -> Arrays:
        """The first row of that size, repeated."""
        row = self.sizes.index(size)
        return self.feed([row] * batch)

    def only(self, chosen: Sequence[int]) -> NumberRows:
        """The chosen rows alone."""
        return dataclasses.replace(self, sizes=_at(self.sizes, chosen), lines=_at(self.lines, chosen), arrays=_at(self.arrays, chosen))


def _at(values: Sequence[T], chosen: Sequence[int]) -> list[T]:
    return [values[r] for r in chosen]


def load_tokenizer(path: Path) -> tuple[Any, int]:
    """A tokenizer and the longest input in tokens, a multiple of the step.

    The maximum is the file's own truncation, or 512 where it has none: cutting at a step keeps padding inside what the
    model has positions for.

    Raises:
        ModelError: no tokenizer (`tokenizer-invalid`).
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"{path.name} is no tokenizer",
            why=str(error)[:300],
            where=str(path),
            hint="name a tokenizer.json of the tokenizers library",
            code="tokenizer-invalid",
        ) from error
    limit = (tokenizer.truncation or {}).get("max_length", _DEFAULT_MAX_TOKENS)
    most = max(int(limit) // STEP_TOKENS, 1) * STEP_TOKENS
    tokenizer.enable_truncation(most)
    tokenizer.no_padding()
    return tokenizer, most


def text_rows(path: Path, tokenizer_file: Path, inputs: Sequence[TensorSpec]) -> TextRows:
    """Read a sample of texts.

    Raises:
        ModelError: a line is no text (`sample-invalid`), or the graph wants an input that no tokenizer makes (`tokenizer-mismatch`).
    """
    tokenizer, most = load_tokenizer(tokenizer_file)
    rule = SizeRule(unit="tokens", step=STEP_TOKENS, maximum=most)
    texts = [samples.text_of(line, where=where) for line, where in read_lines(path)]
    encoded = tokenizer.encode_batch(texts)
    tokens = [{"input_ids": e.ids, "attention_mask": e.attention_mask, "token_type_ids": e.type_ids} for e in encoded]
    strange = [s.name for s in inputs if s.name not in tokens[0]]
    if strange:
        raise ModelError(
            f"no tokenizer makes the input {strange[0]}",
            why="a text model takes input_ids, attention_mask and token_type_ids, or some of them",
            hint="rename the graph's inputs, or leave the tokenizer out and send numbers",
            code="tokenizer-mismatch",
        )
    sizes = [rule.bucket(len(row["input_ids"])) for row in tokens]
    lines = [{"size": s, "inputs": {TEXT_INPUT: {"dtype": "BYTES", "shape": [1, 1], "data": [t]}}} for s, t in zip(sizes, texts, strict=True)]
    pad = json.loads(tokenizer_file.read_text(encoding="utf-8")).get("padding") or {}
    pad_ids = {"input_ids": int(pad.get("pad_id", 0)), "attention_mask": 0, "token_type_ids": int(pad.get("pad_type_id", 0))}
    return TextRows(rule=rule, sizes=sizes, lines=lines, tokens=tokens, inputs=tuple(inputs), pad_ids=pad_ids)


def number_rows(path: Path | None, inputs: Sequence[TensorSpec], *, batched: bool) -> NumberRows:
    """Read a sample of input maps, or make one request of zeros.

    Raises:
        ModelError: a line does not fit the graph's inputs (`sample-invalid`), naming the line.
    """
    if path is None:
        maps = [samples.zeros(inputs, batched=batched)]
    else:
        maps = [samples.inputs_of(line, inputs, batched=batched, where=where) for line, where in read_lines(path)]
    varying = next(((s.name, axis + int(batched)) for s in inputs for axis, d in enumerate(s.shape) if d < 0), None)
    sizes = [1 if varying is None else int(m[varying[0]]["shape"][varying[1]]) for m in maps]
    rule = SizeRule() if varying is None else SizeRule(unit="elements", step=1, maximum=max(sizes))
    arrays = [{name: np.array(t["data"], dtype=samples.NUMPY_NAMES[t["dtype"]]).reshape(t["shape"]) for name, t in m.items()} for m in maps]
    lines = [{"size": s, "inputs": m} for s, m in zip(sizes, maps, strict=True)]
    return NumberRows(rule=rule, sizes=sizes, lines=lines, arrays=arrays, batched=batched)
