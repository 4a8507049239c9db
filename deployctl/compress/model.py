"""What a user's `build()` returns. Imports nothing heavy, so that a project's module can be read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model to compress and serve.

    Attributes:
        module: a `torch.nn.Module`; its `forward` takes the example's tensors by name (a mapping) or in order (a sequence).
        example_inputs: tensors that `forward` accepts, first dimension the batch. With a tokenizer they may be left empty.
        tokenizer: path of a `tokenizer.json`, a `tokenizers.Tokenizer`, or a fast tokenizer of the transformers library. With
            one, requests are texts.
        pooling: how token vectors become one: `mean` over the tokens that the mask keeps, or `cls` for the first; None leaves
            the module's output alone.
        normalize: divide each pooled vector by its length.
    """

    module: Any
    example_inputs: Mapping[str, Any] | Sequence[Any] = ()
    tokenizer: Any = None
    pooling: Literal["mean", "cls"] | None = None
    normalize: bool = False
