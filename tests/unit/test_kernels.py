"""Compiled code on disk: numba's cache finds it by name, and each name ends with a digest of what the code is made of."""

import pytest

from deployctl.core import _batcher_kernel, _cluster_kernel, _cores_kernel, _fluid_kernels, _kernels, _policy_kernels, _station_kernel

MODULES = (_kernels, _station_kernel, _cores_kernel, _batcher_kernel, _cluster_kernel, _fluid_kernels, _policy_kernels)
KERNELS = {name: f.py_func for m in MODULES for name, f in vars(m).items() if hasattr(f, "py_func")}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_uses_only_what_stands_before_it_so_its_name_covers_everything(name):
    function = KERNELS[name]
    assert function.__qualname__.endswith(f"-{_kernels.uses(function)}")


def test_an_edited_function_or_constant_of_another_file_changes_the_name(monkeypatch):
    caller = KERNELS["_advance"]
    before = _kernels.uses(caller)
    monkeypatch.setattr(_station_kernel, "FLOOR", 0.5)
    constant = _kernels.uses(caller)
    monkeypatch.setattr(KERNELS["scan"], "__qualname__", "scan-edited")
    assert len({before, constant, _kernels.uses(caller)}) == 3


def test_the_digest_is_the_same_in_every_process():
    import subprocess
    import sys

    code = "from deployctl.core import _station_kernel as s; print(s._station.py_func.__qualname__)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert seen == KERNELS["_station"].__qualname__
