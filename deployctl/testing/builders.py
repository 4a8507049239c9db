"""Small real bundles for tests and benchmarks: what enters are numbers, what leaves is a stored bundle that a real Triton runs.

None of them needs ONNX, torch or a project folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from deployctl import share
from deployctl.core.artifact import FileRef, TensorSpec
from deployctl.core.bundle import Bundle, SizeRule
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.ports import BlobStore, BundleStore


def tree_refs(blobs: BlobStore, folder: Path, prefix: str) -> tuple[FileRef, ...]:
    """Store every file under `folder` except caches and return references below `prefix`, sorted by path."""
    return tuple(FileRef(path=f"{prefix}/{name}", digest=blobs.put_file(p), size_bytes=p.stat().st_size) for name, p in share.files(folder))


def sample_blob(blobs: BlobStore, sizes: Sequence[int], *, name: str = "INPUT0") -> str:
    """A sample of FP32 requests, one line for each number of elements; values count up and differ between lines."""
    lines = []
    for row, size in enumerate(sizes):
        data = [float(row + 1)] * size
        lines.append(json.dumps({"size": size, "inputs": {name: {"dtype": "FP32", "shape": [1, size], "data": data}}}, sort_keys=True))
    return blobs.put_bytes(("\n".join(lines) + "\n").encode())


def sleep_bundle(
    blobs: BlobStore,
    bundles: BundleStore,
    t0_s: float = 0.01,
    a_s: float = 0.001,
    max_batch: int = 8,
    instances: int = 1,
    *,
    sizes: Sequence[int] = (4,),
    name: str = "sleeper",
    parameters: dict[str, str] | None = None,
) -> Bundle:
    """A bundle whose model takes `t0_s + a_s * b` seconds for a batch of b and repeats INPUT0 as OUTPUT0.

    Args:
        blobs: store for the files.
        bundles: store for the manifest.
        t0_s: seconds a batch.
        a_s: seconds a row.
        max_batch: packaged largest batch.
        instances: packaged copies of the model.
        sizes: numbers of elements in the sample's requests; with more than one the input varies and sizes are buckets.
        name: the model's name.
        parameters: further parameters of model_repo/sleep: `element_s`, `{"fail_at_load": "crash"}`, `{"hang_on": "666"}` and so on.
    """
    words = {"t0_s": repr(t0_s), "a_s": repr(a_s), **(parameters or {})}
    return _numeric(blobs, bundles, pattern="sleep", name=name, sizes=sizes, parameters=words, max_batch=max_batch, instances=instances)


def identity_bundle(
    blobs: BlobStore, bundles: BundleStore, *, max_batch: int = 64, instances: int = 1, elements: int = 16, name: str = "identity"
) -> Bundle:
    """A bundle whose model repeats INPUT0 as OUTPUT0 at once."""
    return _numeric(blobs, bundles, pattern="identity", name=name, sizes=(elements,), parameters={}, max_batch=max_batch, instances=instances)


def _numeric(
    blobs: BlobStore,
    bundles: BundleStore,
    *,
    pattern: str,
    name: str,
    sizes: Sequence[int],
    parameters: dict[str, str],
    max_batch: int,
    instances: int,
) -> Bundle:
    varies = len(set(sizes)) > 1
    shape = (-1,) if varies else (sizes[0],)
    spec = ModelSpec(
        name=name,
        backend="python",
        inputs=(TensorSpec(name="INPUT0", dtype="FP32", shape=shape),),
        outputs=(TensorSpec(name="OUTPUT0", dtype="FP32", shape=shape),),
        serving=ServingConfig(max_batch=max_batch, instances=instances),
        parameters=parameters,
    )
    bundle = Bundle(
        name=name,
        entry=name,
        variant=pattern,
        models=(spec,),
        files=tree_refs(blobs, share.folder("model_repo") / pattern / "1", f"{name}/1"),
        size_rule=SizeRule(unit="elements", step=1, maximum=max(sizes)) if varies else SizeRule(),
        sample=sample_blob(blobs, sizes),
    )
    bundles.save(bundle)
    return bundle
