"""`python -m deployctl.hosts.local --root DIR --env ENV`: the supervisor process. Started by LocalTarget, never by hand."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deployctl.errors import DeployctlError
from deployctl.hosts.local.layout import EnvFolder
from deployctl.hosts.local.supervisor import Supervisor, say
from deployctl.ports import Workspace

# A `down` in progress holds the lock for a while; for another supervisor nobody waits.
_LOCK_WAIT_S = 20.0


def main() -> int:
    """Hold the lock and act until stopped."""
    parser = argparse.ArgumentParser(prog="python -m deployctl.hosts.local")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--env", required=True)
    options = parser.parse_args()
    workspace = Workspace(options.root)
    folder = EnvFolder(workspace, options.env)
    try:
        with folder.exclusive(_LOCK_WAIT_S, supervises=True):
            say(f"supervisor of {options.env} begins")
            Supervisor(workspace, options.env).run()
    except DeployctlError as error:
        say(f"{error.message}: {error.why or error.hint}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
