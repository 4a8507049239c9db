"""What compression hands on to packaging: variants, the sample in the form that servers take, and reference answers.

Content is named by digest. Refuses to know how any of it was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deployctl.core.artifact import FileRef, Variant
from deployctl.core.bundle import SizeRule

TEXT_INPUT = "TEXT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """All variants of one model source.

    Attributes:
        variants: in the order in which they were asked for.
        batched: whether the graph's first dimension is a batch.
        sample: digest of the normalised sample: JSON lines `{"size", "inputs": {NAME: {"dtype", "shape", "data"}}}`.
        answers: variant name -> digest of JSON lines `{"outputs": {NAME: [numbers, flat]}}` for the sample's first lines.
        size_rule: how a request's bucket is found.
        sizes: sample lines by bucket (keys are the bucket as text).
        tokenizer: `tokenizer.json`; None for a model that takes numbers.
        depends: the project's own files that the model was built from, relative path -> digest.
        notes: what a person should know about this sample or model.
        aimed_at: the gate that a method aimed at; None where none did, so that the variants are the same for any gate.
    """

    schema_version: Literal[1] = 1
    variants: tuple[Variant, ...]
    batched: bool
    sample: str
    answers: dict[str, str]
    size_rule: SizeRule
    sizes: dict[str, int]
    tokenizer: FileRef | None = None
    depends: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    aimed_at: float | None = None

    @property
    def digests(self) -> tuple[str, ...]:
        """Every blob that must be there for this record to be of use."""
        files = [f.digest for v in self.variants for f in v.artifact.files]
        return (*files, self.sample, *self.answers.values(), *([self.tokenizer.digest] if self.tokenizer else []))
