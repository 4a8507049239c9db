"""model_repo/ runs in Triton's Python: it may import what is there, and every pattern is a whole Triton model."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "model_repo"
ALLOWED = {"numpy", "onnxruntime", "tokenizers", "triton_python_backend_utils", *sys.stdlib_module_names}
MODELS = sorted(p for p in ROOT.rglob("*.py") if "__pycache__" not in p.parts)


@pytest.mark.parametrize("path", MODELS, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_what_tritons_python_has_is_imported(path):
    tree = ast.parse(path.read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "." for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {n.split(".")[0] for n in names} <= ALLOWED


@pytest.mark.parametrize("path", MODELS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_model_has_the_class_that_triton_calls_and_says_what_it_does(path):
    tree = ast.parse(path.read_text())
    classes = {n.name: {m.name for m in n.body if isinstance(m, ast.FunctionDef)} for n in tree.body if isinstance(n, ast.ClassDef)}
    assert "execute" in classes.get("TritonPythonModel", set())
    assert ast.get_docstring(tree)


def test_every_pattern_has_a_first_version_with_a_file_that_git_keeps():
    patterns = sorted(p.name for p in ROOT.iterdir() if p.is_dir())
    assert patterns == ["ensemble", "identity", "onnx_python", "sleep", "tokenizer_python"]
    for name in patterns:
        assert [p for p in (ROOT / name / "1").iterdir() if p.is_file()], name
