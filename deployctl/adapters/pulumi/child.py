"""One run of one stack: `python -m deployctl.adapters.pulumi.child REQUEST`, started by `engine` in a process group of its own.

The Automation API keeps global state, so that a second stack in the same process would see the first one's. What enters is
a request file; what leaves are JSON lines on stdout: `step`, `diagnostic`, `held`, and last `done` or `failed`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from deployctl import share

PROJECT = "deployctl"


def main() -> int:
    """Run the request; 0 when it ended well."""
    # A Ctrl-C reaches the whole group: the engine stops after its step, and this process has to hear how that ends.
    signal.signal(signal.SIGINT, lambda *_: None)
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    lease = Path(request["lease"]).open("a+", encoding="utf-8")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lease.seek(0)
        tell("held", holder=lease.read())
        return 1
    lease.truncate(0)
    lease.write(json.dumps({**request["holder"], "run": os.getpid()}))
    lease.flush()
    try:
        return run(request)
    finally:
        lease.truncate(0)


def run(request: dict[str, Any]) -> int:
    """One verb on the stack."""
    from pulumi import automation
    from pulumi.automation.errors import CommandError

    try:
        stack = opened(request, automation)
        if request["verb"] == "outputs":
            tell("done", outputs=plain(stack.outputs()))
            return 0
        if request["verb"] == "unlock":
            stack.cancel()
            tell("done", outputs={})
            return 0
        if request["verb"] == "forget":
            stack.workspace.remove_stack(request["stack"])
            tell("done", outputs={})
            return 0
        options: dict[str, Any] = {"on_event": told, "on_output": lambda _: None, "suppress_progress": True}
        if request["verb"] == "destroy":
            # The inputs of the last run are in the state; the program need not run for a removal.
            stack.destroy(remove=False, **options)
            tell("done", outputs={})
            return 0
        if request["verb"] == "preview":
            verb = stack.preview_destroy if request["removal"] else stack.preview
            verb(**options)
            tell("done", outputs={})
            return 0
        if request["look"]:
            # What is gone is made again; a creation that nobody noted is only tried again, since the provider takes what exists.
            stack.refresh(clear_pending_creates=True, on_output=lambda _: None, suppress_progress=True)
        tell("done", outputs=plain(stack.up(**options).outputs))
    except CommandError as error:
        tell("failed", message=str(error))
        return 1
    return 0


def opened(request: dict[str, Any], automation: Any) -> Any:
    """The stack, made where it does not exist, with `infra/program.py` as its program."""
    file = Path(request["document"])
    parent = str(share.folder("infra").parent)
    if parent not in sys.path:
        sys.path.insert(0, parent)

    def program() -> None:
        from infra.program import from_files

        from_files(**{request["kind"]: file}, adopt=request["kind"] == "inputs")  # `PulumiWriter` has asked whose they are

    settings = automation.ProjectSettings(
        name=PROJECT, runtime="python", backend=automation.ProjectBackend(url=request["backend"]) if request["backend"] else None
    )
    command = automation.PulumiCommand(root=request["root"]) if request["root"] else automation.PulumiCommand()
    options = automation.LocalWorkspaceOptions(
        work_dir=request["work"], project_settings=settings, secrets_provider=request["secrets_provider"], pulumi_command=command
    )
    if request["verb"] == "up" or (request["verb"] == "preview" and not request["removal"]):
        return automation.create_or_select_stack(request["stack"], project_name=PROJECT, program=program, opts=options)
    return automation.select_stack(request["stack"], project_name=PROJECT, program=program, opts=options)


def told(event: Any) -> None:
    """One event of the engine as a line."""
    if event.resource_pre_event is not None:
        meta = event.resource_pre_event.metadata
        tell("step", op=str(getattr(meta.op, "value", meta.op)), type=meta.type, name=meta.urn.rsplit("::", 1)[-1])
    elif event.res_op_failed_event is not None:
        meta = event.res_op_failed_event.metadata
        tell("lost", op=str(getattr(meta.op, "value", meta.op)), type=meta.type, name=meta.urn.rsplit("::", 1)[-1])
    elif event.diagnostic_event is not None and event.diagnostic_event.severity in ("error", "warning"):
        tell("diagnostic", severity=event.diagnostic_event.severity, message=event.diagnostic_event.message)


def plain(outputs: dict[str, Any]) -> dict[str, Any]:
    """Outputs without those that are secret: they never leave this process."""
    return {name: output.value for name, output in outputs.items() if not output.secret}


def tell(event: str, **facts: Any) -> None:
    """One line on stdout."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads of the SDK's gRPC server would keep the process alive
