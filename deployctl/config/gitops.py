"""The files of `init --gitops`: what enters are environments and an address, what leaves are the controller's objects and a CI file.

A controller is a file in `templates/gitops` and a line in CONTROLLERS; a CI system a file in `templates/ci` and a line in CI.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deployctl.core.project import Environment

_FOLDER = Path(__file__).resolve().parents[1] / "templates"

# name: the file in templates/gitops
CONTROLLERS: dict[str, str] = {"argocd": "argocd.yaml", "flux": "flux.yaml"}
# name: (the file in templates/ci, where it goes, how a check stands in it)
CI: dict[str, tuple[str, str, str]] = {
    "github": ("github.yml", ".github/workflows/deployctl.yml", "      - run: {}"),
    "gitlab": ("gitlab.yml", ".gitlab-ci.yml", "    - {}"),
}
UNRESOLVED = "https://unresolved.invalid/repository.git"


def files(controller: str, ci: str, service: str, places: Sequence[Environment], *, repository: str | None, version: str) -> dict[str, bytes]:
    """Relative path -> content.

    Args:
        controller: key of CONTROLLERS.
        ci: key of CI.
        service: the service's name.
        places: the environments that commits release.
        repository: address that the controller reads; None is marked as not known.
        version: of deployctl, which CI installs.
    """
    address = repository or UNRESOLVED
    template = (_FOLDER / "gitops" / CONTROLLERS[controller]).read_text("utf-8")
    made = {}
    for place in places:
        path = f"clusters/{place.name}/{controller}.yaml"
        made[path] = _filled(
            template,
            {
                "NAME": service,
                "ENV": place.name,
                "PATH": place.folder,
                "BRANCH": place.branch,
                "NAMESPACE": place.namespace,
                "REPOSITORY": ssh_url(address) if controller == "flux" else address,
                "FILE": path,
            },
        )
    source, target, form = CI[ci]
    checks = "\n".join(form.format(f"deployctl render --env {p.name} --out {p.folder} --check") for p in places)
    words = {"VERSION": version, "CHECKS": checks, "ENVS": " ".join(p.name for p in places)}
    made[target] = _filled((_FOLDER / "ci" / source).read_text("utf-8"), words)
    return made


def ssh_url(address: str) -> str:
    """`git@host:team/echo.git` as `ssh://git@host/team/echo.git`, the only form of it that Flux reads; others as they are."""
    if "://" in address or ":" not in address:
        return address
    host, _, path = address.partition(":")
    return f"ssh://{host}/{path.lstrip('/')}"


def _filled(text: str, words: dict[str, str]) -> bytes:
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text.encode()
