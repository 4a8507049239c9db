"""What `init` starts from: what enters is a template's name and words, what leaves are the files to write.

A template is a folder under `deployctl/templates/`; a new one is a folder and a line in TEMPLATES.
"""

from __future__ import annotations

from pathlib import Path

from deployctl.config import schema

_FOLDER = Path(__file__).resolve().parents[1] / "templates"

# name: what it makes
TEMPLATES: dict[str, str] = {
    "sentence-embedding": "MiniLM as a text-to-vector service",
}
# kind of an existing model: the folder whose deploy.yaml describes it
EXISTING: dict[str, str] = {"onnx": "from-onnx", "triton": "from-triton"}


def render(folder: str, words: dict[str, str]) -> dict[str, bytes]:
    """Relative path -> content, deploy.yaml last: where it exists, everything it names exists."""
    files: dict[str, bytes] = {schema.FILE_NAME: schema.text().encode()}
    source = _FOLDER / folder
    for path in sorted(source.iterdir(), key=lambda p: (p.name == "deploy.yaml", p.name)):
        if path.is_file():
            files[path.name] = path.read_bytes()
    text = files["deploy.yaml"].decode()
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    files["deploy.yaml"] = text.encode()
    return files


def sample() -> bytes:
    """The English sentences of the sentence-embedding template."""
    return (_FOLDER / "sentence-embedding" / "samples.jsonl").read_bytes()
