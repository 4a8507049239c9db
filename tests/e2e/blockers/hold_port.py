"""Runs a command while a port is listened on, after writing that port into FOLDER/deploy.yaml: `hold_port.py FOLDER COMMAND…`."""

import socket
import subprocess
import sys
from pathlib import Path

with socket.create_server(("127.0.0.1", 0)) as server:
    file = Path(sys.argv[1]) / "deploy.yaml"
    file.write_text(file.read_text().replace("http: 0", f"http: {server.getsockname()[1]}"))
    sys.exit(subprocess.run(sys.argv[2:], check=False).returncode)
