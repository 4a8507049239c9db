"""Puts the packages named in BLOCK out of reach, as if they were not installed: import and metadata both say so.

PRETEND_PYTHON=3.13 makes the interpreter call itself that from the moment on at which deployctl's own modules load; the
libraries before them were installed for the real one.
"""

import importlib.abc
import os
import sys
from importlib import metadata

_BLOCKED = set(os.environ.get("BLOCK", "").split(",")) - {""}


class _Guard(importlib.abc.MetaPathFinder):
    """One of the interpreter's own finders, which no longer finds what is blocked."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in _BLOCKED:
            return None
        if fullname == "deployctl.errors" and "PRETEND_PYTHON" in os.environ:
            sys.version_info = (*map(int, os.environ["PRETEND_PYTHON"].split(".")), 0, "final", 0)
        return self.finder.find_spec(fullname, path, target)


sys.meta_path[:] = [_Guard(finder) for finder in sys.meta_path]
_version = metadata.version


def _blocked_version(name):
    if name.replace("-", "_") in _BLOCKED:
        raise metadata.PackageNotFoundError(name)
    return _version(name)


metadata.version = _blocked_version
