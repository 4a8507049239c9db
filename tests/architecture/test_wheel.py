"""The wheel carries what other processes run, and nothing that leaks top-level names."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)], cwd=ROOT, check=True, capture_output=True, timeout=120
    )
    return next(out.glob("*.whl"))


def test_wheel_has_the_shared_folders_and_no_stray_names(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"deployctl"}
    for needed in (
        "deployctl/_share/model_repo/",
        "deployctl/_share/loadtests/locustfile.py",
        "deployctl/_share/infra/",
        "deployctl/config/catalog.toml",
        "deployctl/templates/",
    ):
        assert any(n.startswith(needed) for n in names), needed
    assert not [n for n in names if "__pycache__" in n or n.endswith(".pyc")]


@pytest.mark.full
def test_wheel_works_in_an_empty_environment(wheel, tmp_path):
    """base.txt has no torch: init and doctor must work from the wheel alone."""
    uv = ROOT / ".tools" / "bin" / "uv"
    if not uv.exists():
        pytest.skip("uv is set up by `make`")
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tmp_path / "env"], check=True, timeout=120)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "--require-hashes", "-r", ROOT / "locks" / "base.txt"], check=True, timeout=600)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "--no-deps", wheel], check=True, timeout=120)
    work = tmp_path / "work"
    work.mkdir()
    command = tmp_path / "env" / "bin" / "deployctl"
    init = subprocess.run([command, "init", "--yes"], cwd=work, capture_output=True, text=True, timeout=120, check=False)
    assert init.returncode == 0, init.stderr
    assert (work / "deploy.yaml").is_file()
    doctor = subprocess.run([command, "doctor", "-o", "json"], cwd=work, capture_output=True, text=True, timeout=120, check=False)
    assert doctor.returncode in (0, 2), doctor.stderr
    assert '"schema_version"' in doctor.stdout
    assert "Traceback" not in init.stderr + doctor.stderr
