"""An ONNX model through ONNX Runtime in Python: the twin of Triton's own onnxruntime backend, for a Triton that lacks it.

One execution of the batcher is one run: rows of all requests are joined, and the answers cut apart again. One thread an
instance, without spinning, so that instances do not fight over cores. Parameter:
intra_op_thread_count   threads of one run (1)
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args):
        """Load `model.onnx` of the version folder."""
        config = json.loads(args["model_config"])
        values = {k: v["string_value"] for k, v in config["parameters"].items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(values.get("intra_op_thread_count", "1"))
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.batched = config["max_batch_size"] > 0
        self.inputs = [i["name"] for i in config["input"]]
        self.outputs = [o["name"] for o in config["output"]]

    def execute(self, requests):
        """Run the batch that Triton formed."""
        feeds = [{n: pb_utils.get_input_tensor_by_name(r, n).as_numpy() for n in self.inputs} for r in requests]
        if not self.batched:
            return [self._response(self.session.run(self.outputs, feed)) for feed in feeds]
        joined = feeds[0] if len(feeds) == 1 else {n: np.concatenate([f[n] for f in feeds]) for n in self.inputs}
        results = self.session.run(self.outputs, joined)
        ends = np.cumsum([f[self.inputs[0]].shape[0] for f in feeds])
        return [self._response([v[end - f[self.inputs[0]].shape[0] : end] for v in results]) for f, end in zip(feeds, ends, strict=True)]

    def _response(self, values):
        return pb_utils.InferenceResponse([pb_utils.Tensor(n, np.ascontiguousarray(v)) for n, v in zip(self.outputs, values, strict=True)])
