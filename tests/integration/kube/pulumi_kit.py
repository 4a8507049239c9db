"""What the tests of the real Pulumi engine share: a stack of the rig's service, and a command that dies with everything it started."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import kube_rig
import pytest
from kube_service import FIXED

from deployctl.adapters.kubernetes import Cluster
from deployctl.core import codec
from deployctl.core.stack import Stack
from deployctl.hosts.kubernetes.pulumi_writer import PulumiWriter
from deployctl.testing import kube


def engine_or_skip():
    """Skip visibly where there is no engine; fail where it was asked for."""
    if shutil.which("pulumi") is None:
        words = "the pulumi engine is not on PATH"
        if "pulumi" in os.environ.get("DEPLOYCTL_REQUIRE", "").split(","):
            pytest.fail(words)
        pytest.skip(words)


def inputs_of(service, text=b"one", scaling=FIXED, **changes):
    """A plan on the rig's context, and what the stack is made of."""
    packed, made = service.plan(text, scaling=scaling, **changes)
    made = dataclasses.replace(made, cluster=dataclasses.replace(made.cluster, context="admin"))
    return packed, made, kube.inputs(packed, made, writer="pulumi")


def stack_for(service, inputs):
    return Stack(name=f"echo-{service.namespace}", kind="inputs", document=codec.dumps(inputs))


def writer(service, engine, packed, made):
    def inputs(plan):
        return kube.inputs(packed, plan, writer="pulumi")

    return PulumiWriter(Cluster("admin", kubeconfig=str(service.plane.kubeconfig)), made, engine=engine, inputs=inputs)


RUN = """
import sys
from pathlib import Path
from deployctl.adapters.pulumi import PulumiEngine
from deployctl.core.stack import Stack
from deployctl.flows._gather import Silent
class Talk(Silent):
    def update(self, message):
        print(message, flush=True)
folder, name, document = sys.argv[1:]
PulumiEngine(Path(folder)).up(Stack(name=name, kind="inputs", document=Path(document).read_text()), Talk())
print("finished", flush=True)
"""


def started(kubeconfig, tmp_path, stack, *, first_step=True):
    """`up` of a stack in a process of its own; its first step was begun."""
    document = tmp_path / "document.json"
    document.write_text(stack.document)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "pulumi"), stack.name, str(document)],
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if first_step:
        assert process.stdout.readline()
    return process


def family(pid):
    """The process and everything below it, as /proc tells."""
    below = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        below.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += below.get(found[-1], [])
    return found


def kill_family(pid):
    """kill -9 of a command with its run, engine, language host and providers."""
    for member in family(pid):
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Killer:
    """Runs a command of a project and kills all of it at its `at`-th write by Pulumi: when the API server has done it and nobody has heard of it."""

    def __init__(self, api_proxy, project):
        self.project = project
        self.proxy = api_proxy(after_write=self._after, bearer=kube_rig.ADMIN)
        project.through(self.proxy.url)
        self._at, self._child, self._seen = None, None, 0
        self.killed = []

    def _after(self, method, path):
        if self._at is None or not (method == "DELETE" or "fieldManager=deployctl-pulumi" in path or "fieldManager=pulumi" in path):
            return
        self._seen += 1
        if self._seen == self._at + 1:
            self._at = None
            kill_family(self._child.pid)
            self.killed.append(f"{method} {path.partition('?')[0].rsplit('/', 2)[-2]}")

    def run(self, at, *words):
        """Whether it was killed before it ended; what it said."""
        before = len(self.killed)
        self._child, self._seen = self.project.start(*words), 0
        self._at = at
        said = self._child.communicate(timeout=180)
        self._at = None
        return len(self.killed) > before, said
