"""Pulumi starts here, with this folder on sys.path: the package is its parent."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.program import main

main()
