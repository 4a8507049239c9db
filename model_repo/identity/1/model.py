"""OUTPUT0 repeats INPUT0 at once: the cheapest real model, for measuring everything around a model."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def execute(self, requests):
        """One answer a request."""
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", pb_utils.get_input_tensor_by_name(r, "INPUT0").as_numpy())]) for r in requests]
