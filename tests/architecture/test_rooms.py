"""Import contracts, registries and the error tree: what keeps the rooms apart. Runs first."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deployctl import errors
from deployctl.cli import VERBS
from deployctl.cli._codes import CODES
from deployctl.wiring import ADAPTERS, HOSTS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "deployctl"


def python_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def test_import_contracts_hold():
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:]


def test_a_broken_contract_is_seen(tmp_path):
    """The check can fail: a copy of the tree in which core imports time is refused."""
    import shutil

    shutil.copytree(PACKAGE, tmp_path / "deployctl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    (tmp_path / "deployctl" / "core" / "slo.py").write_text("import time\n")
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode != 0
    assert "deployctl.core.slo -> time" in result.stdout


@pytest.mark.parametrize("name", list(VERBS))
def test_each_verb_has_its_file_and_command(name):
    import click

    module, attribute = VERBS[name][0].split(":")
    assert module == f"deployctl.cli.{name}"
    assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)


def test_each_cli_file_is_a_verb():
    files = {p.stem for p in (PACKAGE / "cli").glob("*.py") if not p.stem.startswith("_") and p.stem != "main"}
    assert files == set(VERBS)


@pytest.mark.parametrize("address", [*ADAPTERS.values(), *HOSTS.values()])
def test_wired_names_exist(address):
    module, attribute = address.split(":")
    assert hasattr(importlib.import_module(module), attribute)


def registered(module: str, name: str) -> dict[str, object]:
    return getattr(importlib.import_module(module), name)


def test_each_policy_file_is_registered():
    files = {p.stem for p in (PACKAGE / "core" / "policies").glob("*.py") if not p.stem.startswith("_")}
    assert files == set(registered("deployctl.core.policies", "POLICIES"))


def test_each_compression_method_file_is_registered():
    files = {p.stem for p in (PACKAGE / "compress" / "methods").glob("*.py") if not p.stem.startswith("_")}
    assert files == {n.replace("-", "_") for n in registered("deployctl.compress.methods", "METHODS")}


def error_classes() -> list[type[errors.DeployctlError]]:
    found = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]
    return [c for c in found if c is not errors.DeployctlError]


@pytest.mark.parametrize("cls", error_classes())
def test_error_tree_derives_and_explains(cls):
    assert issubclass(cls, errors.DeployctlError)
    assert cls.__doc__


def test_every_error_class_in_the_package_is_in_the_tree():
    for path in python_files(PACKAGE):
        for node in ast.walk(ast.parse(path.read_text())):
            # The scripts of a pod run without this package: `templates` cannot use its errors.
            if isinstance(node, ast.ClassDef) and path.name != "errors.py" and "templates" not in path.parts:
                bases = [ast.unparse(b) for b in node.bases]
                assert not {"Exception", "RuntimeError", "ValueError", "OSError"} & set(bases), f"{path}:{node.lineno} {node.name}"


def used_codes() -> set[str]:
    codes = {cls.default_code for cls in error_classes()}
    for path in python_files(PACKAGE):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.keyword) and node.arg in ("code", "default_code") and isinstance(node.value, ast.Constant)):
                continue
            if isinstance(node.value.value, str) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", node.value.value):
                codes.add(node.value.value)
    return codes


def test_every_error_code_is_explained():
    missing = used_codes() - set(CODES)
    assert not missing, f"add to deployctl/cli/_codes.py: {sorted(missing)}"


def test_no_code_is_explained_for_nothing():
    text = "\n".join(p.read_text() for p in python_files(PACKAGE) if p.name != "_codes.py")
    unused = [c for c in CODES if f'"{c}"' not in text]
    assert not unused, unused


def test_help_loads_no_heavy_module():
    heavy = [
        "torch",
        "kubernetes",
        "locust",
        "gevent",
        "pulumi",
        "boto3",
        "tritonclient",
        "numpy",
        "scipy",
        "numba",
        "pydantic",
        "onnxruntime",
        "rich",
    ]
    code = (
        "import sys\nfrom deployctl.cli.main import run\n"
        f"assert run(['--help']) == 0\nprint([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr.strip() == "[]"


def test_ports_load_no_numbers():
    """Every verb loads the ports; what their types are made of is loaded by the verbs that compute."""
    code = "import sys, deployctl.ports\nprint([m for m in ('numpy', 'scipy', 'numba') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_verbs_about_releases_load_no_numbers():
    verbs = ("call", "diff", "history", "release", "rollback", "scale", "status")
    modules = ", ".join(f"deployctl.{room}.{verb}" for room in ("cli", "flows") for verb in verbs)
    modules += ", deployctl.hosts.kubernetes.fleet"  # what `status --all` lists with
    code = f"import sys, {modules}\nprint([m for m in ('numpy', 'scipy', 'numba') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
