"""A model whose service time is known: one executed batch of b rows takes t0_s + a_s * b + element_s * (elements in the batch).

It burns no processor time, so that two cores can carry many replicas. OUTPUT0 repeats INPUT0. Parameters (all optional):
t0_s, a_s, element_s   seconds
fail_at_load           `raise` (an exception) or `crash` (the process dies)
hang_on                a number: a request whose first element equals it never returns
crash_on               a number: a request whose first element equals it kills the process
error_on               a number: a request whose first element equals it is answered with an error
answer_offset          a number that is added to every answer, for tests that must notice wrong answers
"""

import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args):
        """Read the parameters; fail here if a test wants that."""
        values = {k: v["string_value"] for k, v in json.loads(args["model_config"])["parameters"].items()}
        self.t0_s = float(values.get("t0_s", 0))
        self.a_s = float(values.get("a_s", 0))
        self.element_s = float(values.get("element_s", 0))
        self.offset = np.float32(values.get("answer_offset", 0))
        self.triggers = {name: float(values.get(name, "nan")) for name in ("hang_on", "crash_on", "error_on")}
        if values.get("fail_at_load") == "raise":
            raise RuntimeError("fail_at_load: this model was told to fail while it loads")
        if values.get("fail_at_load") == "crash":
            os.abort()

    def execute(self, requests):
        """One sleep for the whole batch, then every answer."""
        inputs = [pb_utils.get_input_tensor_by_name(r, "INPUT0").as_numpy() for r in requests]
        rows = sum(x.shape[0] for x in inputs)
        time.sleep(self.t0_s + self.a_s * rows + self.element_s * sum(x.size for x in inputs))
        return [self._answer(x) for x in inputs]

    def _answer(self, x):
        first = float(x.flat[0]) if x.size else float("nan")
        if first == self.triggers["hang_on"]:
            while True:
                time.sleep(3600)
        if first == self.triggers["crash_on"]:
            os.abort()
        if first == self.triggers["error_on"]:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("error_on: this request was told to fail"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", x + self.offset)])
