"""The user's own defaults, `$XDG_CONFIG_HOME/deployctl/config.yaml`: what enters is the file, what leaves are flag defaults.

Only what is a matter of taste stands here: which environment is meant and in what form results are printed. What a service
is stands in deploy.yaml alone, so that two people get the same service.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from deployctl.config import complaints, model
from deployctl.config.loader import plain, read_bytes
from deployctl.config.tree import parse


def read(file: Path) -> dict[str, str]:
    """`env` and `output` as far as they are written.

    Raises:
        ProjectError: an unknown key or a wrong value, with file:line:column.
    """
    document = parse(read_bytes(file), str(file))
    try:
        raw = model.RawUser.model_validate(plain(document.root))
    except ValidationError as error:
        raise complaints.explain(document, model.RawUser, error) from error
    return {key: value for key, value in (("env", raw.env), ("output", raw.output)) if value is not None}
