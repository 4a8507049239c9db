"""`watchdog.py FOLDER`: waits for the end of its standard input and, unless that said `done`, kills what runs on files of FOLDER.

Test servers have sessions of their own, so nothing else ends them when pytest itself is killed (`timeout`, `kill -9`, out of memory).
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is pytest's to handle
    if sys.stdin.buffer.read() != b"done":
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and int(entry.name) != os.getpid() and os.fsencode(sys.argv[1]) in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
