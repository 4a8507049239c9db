"""eject: what Pulumi runs, as a folder of the user's own that plain `pulumi up` takes; deployctl need not be installed there.

What enters are inputs of a platform or of a service; what is left is the program, the pure part of deployctl that it is a
function of, and one stack's configuration. An ejected folder is a copy: later changes of deployctl do not reach it.
"""

from __future__ import annotations

from pathlib import Path

from deployctl import share
from deployctl.config import files
from deployctl.core.stack import Stack
from deployctl.errors import ProjectError

_NEEDS = {"eks": "pulumi-aws>=7.20", "gke": "pulumi-gcp>=9.8", "aks": "pulumi-azure>=6.30"}
_README = """\
# {name}: infrastructure

Written by `deployctl eject infra`. Change `infra/{input}` or the program; nothing writes here again.

    python -m venv .venv && .venv/bin/pip install -r requirements.txt
    pulumi login            # or `pulumi login file://...`: where the state is kept
    cd infra && pulumi stack init {name} && pulumi up

`infra/` is the program. `deployctl/` beside it is the pure part of deployctl that the program is a function of (objects of a
service, settings of a platform); it imports no SDK and reads no file.
"""


def eject(stack: Stack, cloud: str, out: Path) -> list[str]:
    """Write the folder; the relative paths of all files in it.

    Raises:
        ProjectError: the folder has files in it (`folder-not-empty`).
        MachineError: it cannot be written (`file-not-written`).
    """
    if out.exists() and any(out.iterdir()):
        raise ProjectError(f"{out} has files in it", hint="name a new or empty folder", code="folder-not-empty", where=str(out))
    wanted: dict[str, bytes] = {}
    for name, file in share.files(share.folder("infra")):
        wanted[f"infra/{name}"] = file.read_bytes()
    for name, file in share.files(share.package("core")):
        wanted[f"deployctl/core/{name}"] = file.read_bytes()
    for name in ("__init__.py", "errors.py"):
        wanted[f"deployctl/{name}"] = share.package(name).read_bytes()
    input_name = f"{stack.kind}.json"
    needs = ["pulumi>=3.200", "pulumi-kubernetes>=4.34", "numpy>=1.26", *([_NEEDS[cloud]] if cloud in _NEEDS else [])]
    wanted[f"infra/{input_name}"] = stack.document.encode()
    wanted[f"infra/Pulumi.{stack.name}.yaml"] = f"config:\n  deployctl:{stack.kind}: {input_name}\n".encode()
    wanted["requirements.txt"] = ("\n".join(needs) + "\n").encode()
    wanted["README.md"] = _README.format(name=stack.name, input=input_name).encode()
    for name, data in wanted.items():
        files.replace(out / name, data)
    return sorted(wanted)
