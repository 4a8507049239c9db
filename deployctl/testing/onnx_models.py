"""Tiny real ONNX models, a tokenizer and samples for tests: what enters are paths and sizes, what leaves are files.

Needs the packages onnx and tokenizers, never torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ("the", "a", "cat", "dog", "ferry", "sat", "ran", "on", "under", "mat", "bridge", "and", "slept", "barked", "old", "small")


def write_mlp(path: Path, *, width: int = 64, classes: int = 10, batch: str | int = "batch", seed: int = 0) -> Path:
    """Input x FP32 [batch, width] -> y FP32 [batch, classes], two layers."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(seed)
    weights = {"w1": rng.normal(size=(width, 2 * width)) / 8, "w2": rng.normal(size=(2 * width, classes)) / 11}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, width])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, classes])]
    return _save(path, nodes, inputs, outputs, weights)


def write_encoder(path: Path, *, width: int = 32, vocabulary: int = 64, seed: int = 0) -> Path:
    """Inputs input_ids, attention_mask INT64 [batch, seq] -> hidden FP32 [batch, seq, width]: an embedding and one layer."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(seed)
    weights = {"table": rng.normal(size=(vocabulary, width)), "w": rng.normal(size=(width, width)) / 6}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["m"]),
        helper.make_node("Tanh", ["m"], ["hidden"]),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "seq"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "seq", width])]
    return _save(path, nodes, inputs, outputs, weights)


def write_transformer(path: Path, *, heads: int = 4, width: int = 32, inner: int = 64, idle_heads: int = 1, idle_columns: int = 32) -> Path:
    """Input x FP32 [batch, seq, width] -> y of the same shape: one layer of attention and feed-forward, parts of which do nothing.

    The first `idle_heads` heads and the first `idle_columns` inner columns are read with weights of zero.
    """
    from onnx import TensorProto, helper

    rng, size = np.random.default_rng(0), width // heads
    weights = {f"w_{n}": rng.normal(size=(width, width)) / np.sqrt(width) for n in "qkvo"} | {f"b_{n}": rng.normal(size=width) / 4 for n in "qkvo"}
    weights |= {"w_1": rng.normal(size=(width, inner)) / np.sqrt(width), "b_1": rng.normal(size=inner) / 4}
    weights |= {"w_2": rng.normal(size=(inner, width)) / np.sqrt(inner), "b_2": rng.normal(size=width) / 4, "scale": np.array(size**-0.5)}
    weights["w_o"][: idle_heads * size] = 0.0
    weights["w_2"][:idle_columns] = 0.0
    nodes: list[Any] = []

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def linear(x: str, name: str) -> str:
        return node("Add", [node("MatMul", [x, f"w_{name}"], f"m_{name}"), f"b_{name}"], f"l_{name}")

    q, k, v = (node("Reshape", [linear("x", n), "split"], f"h_{n}") for n in "qkv")
    scores = node("MatMul", [node("Transpose", [q], "t_q", perm=[0, 2, 1, 3]), node("Transpose", [k], "t_k", perm=[0, 2, 3, 1])], "scores")
    share = node("Softmax", [node("Mul", [scores, "scale"], "scaled")], "share", axis=-1)
    mixed = node("MatMul", [share, node("Transpose", [v], "t_v", perm=[0, 2, 1, 3])], "mixed")
    joined = node("Reshape", [node("Transpose", [mixed], "t_m", perm=[0, 2, 1, 3]), "join"], "joined")
    attended = node("Add", [linear(joined, "o"), "x"], "attended")
    linear(node("Relu", [linear(attended, "1")], "relu"), "2")
    node("Add", ["l_2", attended], "y")
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "seq", width]) for n in "xy"]
    shapes = {"split": np.array([0, 0, -1, size]), "join": np.array([0, 0, -1])}
    return _save(path, nodes, tensors[:1], tensors[1:], weights | shapes)


def _save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any]) -> Path:
    import onnx
    from onnx import helper, numpy_helper

    initializers = [numpy_helper.from_array(v.astype(np.int64 if v.dtype.kind == "i" else np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, str(path))
    return path


def write_tokenizer(path: Path, *, max_tokens: int = 64) -> Path:
    """A tokenizer of whole words with fixed padding in its file, as published ones often have."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, **{w: i + 2 for i, w in enumerate(WORDS)}}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(length=max_tokens)
    tokenizer.save(str(path))
    return path


def write_texts(path: Path, *, lines: int = 40, longest: int = 40, seed: int = 0) -> Path:
    """A sample of texts of 1 to `longest` words."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size=int(n))) for n in rng.integers(1, longest + 1, size=lines)]
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return path


def write_numbers(path: Path, *, width: int = 64, lines: int = 40, name: str = "x", seed: int = 0) -> Path:
    """A sample of FP32 vectors."""
    rng = np.random.default_rng(seed)
    rows = [{name: [round(float(v), 3) for v in rng.normal(size=width)]} for _ in range(lines)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def write_project(root: Path, *, source: str, sample: str = "samples.jsonl", more: str = "", name: str = "tiny", extra: str = "") -> Path:
    """A deploy.yaml around a model source; `more` is added inside `model`, `extra` at the end."""
    root.mkdir(parents=True, exist_ok=True)
    text = f"""version: 1
name: {name}
model: {{source: "{source}", sample: {sample}{more}}}
slo: {{latency: {{p99: 100ms}}}}
traffic: {{rate: 20/s}}
{extra}"""
    (root / "deploy.yaml").write_text(text, encoding="utf-8")
    return root
