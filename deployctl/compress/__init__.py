"""The torch room: what enters is a model source and a sample, what leaves are ONNX variants with measured cost and fidelity.

It runs in a process of its own (`python -m deployctl.compress`), since user code and half of PyTorch run in it. Refuses to
know Triton, stores, flows and hosts.
"""

from deployctl.compress.model import Model

__all__ = ["Model"]
