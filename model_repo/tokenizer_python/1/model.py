"""Text to tokens: TEXT (one string a row) becomes the tensors that the encoder takes, named as this model's outputs.

Every request is padded by itself to the next multiple of `pad_multiple`, so that the encoder's batcher, which joins equal shapes
only, finds mates; rows of one request share a width. Texts are cut at `max_tokens`, a multiple of the step. Parameters:
max_tokens, pad_multiple   counts of tokens
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

# What the tokenizers library calls the tensors of an encoder.
FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args):
        """Load the tokenizer that lies in the version folder."""
        config = json.loads(args["model_config"])
        values = {k: v["string_value"] for k, v in config["parameters"].items()}
        self.outputs = [(o["name"], pb_utils.triton_string_to_numpy(o["data_type"])) for o in config["output"]]
        path = Path(args["model_repository"]) / args["model_version"] / "tokenizer.json"
        padding = json.loads(path.read_text(encoding="utf-8")).get("padding") or {}
        self.tokenizer = Tokenizer.from_file(str(path))
        self.tokenizer.enable_truncation(int(values["max_tokens"]))
        self.tokenizer.enable_padding(
            pad_id=padding.get("pad_id", 0),
            pad_type_id=padding.get("pad_type_id", 0),
            pad_token=padding.get("pad_token", "[PAD]"),
            pad_to_multiple_of=int(values["pad_multiple"]),
        )

    def execute(self, requests):
        """Answer each request with tensors of its own width; a text that is no UTF-8 fails its own request only."""
        return [self._answer(r) for r in requests]

    def _answer(self, request):
        rows = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1)
        try:
            texts = [row.decode("utf-8") for row in rows]
        except UnicodeDecodeError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"TEXT is not UTF-8: {error}"))
        encoded = self.tokenizer.encode_batch(texts)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.array([getattr(e, FIELDS[name]) for e in encoded], dtype=kind)) for name, kind in self.outputs]
        )
