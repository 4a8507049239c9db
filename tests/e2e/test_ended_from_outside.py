"""What a scheduler, `timeout` or a closed terminal sends ends a command as Ctrl-C does: cleared up, one line, exit code 8."""

import signal
import subprocess
import sys

import pytest

# A verb that holds a server, as `tune` does, and says when it has let go.
SCRIPT = """
import sys, time
from deployctl.cli import main as cli

def verb(**_):
    try:
        print("holds", flush=True)
        time.sleep(60)
    finally:
        print("stopped", flush=True)

cli.deployctl.main = verb
cli.main([])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_ended_command_clears_up(number):
    command = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # ignored where this test itself runs in the background or under nohup
    )
    assert command.stdout.readline() == "holds\n"
    command.send_signal(number)
    out, err = command.communicate(timeout=60)
    assert (out, err, command.returncode) == ("stopped\n", "cancelled; run the same command again to finish what was begun\n", 8)
