"""What Pulumi's engine says, as something a person can act on."""

import pytest

from deployctl.core import stack
from deployctl.core.stack import Holder, Step

LOCKED = """error: the stack is currently locked by 1 lock(s).
  file:///s/.pulumi/locks/organization/deployctl/x/1.json: created by ada@build-7 (pid 4711) at 2026-11-24T22:00:00Z"""


def test_steps_that_change_nothing_are_left_out_and_each_stands_once():
    a, b = Step(op="create", type="kubernetes:apps/v1:Deployment", name="x"), Step(op="same", type="t", name="y")
    root = Step(op="create", type="pulumi:pulumi:Stack", name="deployctl-x")
    assert stack.changes([root, a, b, a]) == (a,)
    assert str(a) == "create Deployment x"


def test_the_holder_of_a_lock_is_read():
    assert stack.holders(LOCKED) == [Holder(user="ada", host="build-7", pid=4711)]
    assert stack.holders("created by ada@build-7 (pid 1)") == []


@pytest.mark.parametrize(
    ("text", "code", "exit_code"),
    [
        (LOCKED, "stack-locked", 12),
        ("error: getting secrets manager: incorrect passphrase", "stack-passphrase", 2),
        ("operation error STS: ExpiredToken: The security token included in the request is expired", "cloud-login", 3),
        ("google: could not find default credentials", "cloud-login", 3),
        ("creating EC2 Instance: VcpuLimitExceeded: You have requested more vCPU", "cloud-quota", 4),
        ("error: update failed\nsomething else", "stack-failed", 4),
        ("", "stack-failed", 4),
    ],
)
def test_a_failure_says_who_can_mend_it(text, code, exit_code):
    error = stack.failure("platform-x", [text], "run it again", "pulumi cancel --yes --stack platform-x")
    assert (error.code, error.exit_code) == (code, exit_code)
    assert error.hint
    assert ("pulumi cancel --yes --stack platform-x" in error.hint) == (code == "stack-locked")


def test_the_first_complaint_is_the_cause():
    assert stack.failure("s", ["\nfirst thing\n", "second"], "again", "unlock").why == "first thing"


WARNING = """Attempting to deploy or update resources with 2 pending operations from previous deployment.
  * urn:pulumi:platform-x::deployctl::deployctl:eks:Cluster$aws:ec2/vpc:Vpc::vpc, interrupted while creating
  * urn:pulumi:platform-x::deployctl::aws:ec2/eip:Eip::nat, interrupted while deleting
These resources are in an unknown state."""


def test_creations_that_a_killed_run_left_are_read_from_the_engines_warning():
    (urn,) = stack.interrupted(WARNING)
    assert urn.endswith("::vpc")
    assert stack.step_of("create", urn) == Step(op="create", type="aws:ec2/vpc:Vpc", name="vpc")
    assert stack.interrupted("all is well") == []
