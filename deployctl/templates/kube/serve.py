"""Becomes tritonserver with its admin interfaces closed. Runs in the stock Triton image: standard library only.

A restricted interface wants a header with a secret. Nobody needs these interfaces of a replica that serves, so the secret is
drawn at start and known to nobody; it shows only in this container's own process list. A replica that is only measured gets the key of
who measures it in DEPLOYCTL_ADMIN_KEY.
"""

from __future__ import annotations

import os
import secrets
import sys

RESTRICTED = ("model-repository", "model-config", "shared-memory", "statistics", "trace", "logging")


def arguments(given: list[str], key: str) -> list[str]:
    """The server's arguments: those given, and every admin interface closed on both protocols."""
    names = ",".join(RESTRICTED)
    return [
        "tritonserver",
        *given,
        f"--http-restricted-api={names}:x-deployctl-admin={key}",
        f"--grpc-restricted-protocol={names}:x-deployctl-admin={key}",
    ]


if __name__ == "__main__":
    words = arguments(sys.argv[1:], os.environ.pop("DEPLOYCTL_ADMIN_KEY", "") or secrets.token_hex(24))
    os.execvp(words[0], words)
