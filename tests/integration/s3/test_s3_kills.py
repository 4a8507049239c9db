"""kill -9 of a push and a commit at chosen requests: nothing half visible, and the same command completes.

A child process publishes a bundle (one file of it in parts) and records two releases. The proxy kills it at its n-th request,
in odd rounds before the store heard of it, in even ones after the store did it.
"""

import multiprocessing
import os
import random
import signal

import pytest
from test_s3_faults import FILES, PART, big, machine, packed, sound, whole

from deployctl.adapters.remote import Remote
from deployctl.core import store
from deployctl.core.release import next_release
from deployctl.flows import _publish
from deployctl.flows._mirror import catch_up
from deployctl.testing.contracts import a_plan
from deployctl.testing.memory import MemoryRecordStore, NotedProgress

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["boto3", "deployctl.adapters.s3", "deployctl.adapters.remote", "deployctl.flows._publish", "deployctl.testing.contracts"]
)
TTL_S = 1.0  # of the leases: a killed holder is replaced after it


def command(folder, bucket_name, endpoint, env):
    """What is killed, and run again."""
    os.environ.update(env)
    tools = _tools(folder, bucket_name, endpoint)
    bundle = packed(tools, CONTENT)
    _publish.publish(tools, bundle, NotedProgress(), env="prod")
    catch_up(_history(bundle), tools.remote.records("svc", "prod"))


CONTENT = {**FILES, "m/1/big": big(1)}


def _tools(folder, bucket_name, endpoint):
    from s3_kit import Bucket

    bucket = Bucket.__new__(Bucket)
    bucket.name, bucket.endpoint = bucket_name, endpoint
    tools = machine(folder, bucket, endpoint)
    tools.remote = Remote(tools.remote.objects, tools.blobs, folder / "fetch", owner="ci", ttl_s=TTL_S, patience_s=20.0, poll_s=0.1)
    return tools


def _history(bundle):
    records = MemoryRecordStore()
    for n in (1, 2):
        release = next_release(records.history(), a_plan(bundle=bundle.digest, replicas=n), action="up", now_s=1.0, by="ada@host")
        records.append(release, expected_parent=release.parent)
    return records.history()


def run(tmp_path, bucket, proxy, account):
    child = CONTEXT.Process(target=command, args=(tmp_path / "ci", bucket.name, proxy.endpoint, account.identity))
    child.start()
    return child


def requests_of_a_whole_run(tmp_path, account, proxy):
    bucket = account.bucket()
    proxy.asked.clear()
    child = run(tmp_path / "count", bucket, proxy, account)
    child.join(60)
    assert child.exitcode == 0
    return len(proxy.asked)


def kill_at(number, tmp_path, account, proxy):
    bucket, child, count = account.bucket(), [], [0]

    def choose(method, path, headers):
        count[0] += 1
        if count[0] != number:
            return None
        if number % 2 == 0:
            return lambda handler, body: (handler.upstream(body), os.kill(child[0].pid, signal.SIGKILL))
        return lambda handler, body: os.kill(child[0].pid, signal.SIGKILL)

    proxy.fault = choose
    child.append(run(tmp_path, bucket, proxy, account))
    child[0].join(60)
    assert child[0].exitcode == -signal.SIGKILL, (number, child[0].exitcode)
    proxy.fault = lambda *_: None
    tools = _tools(tmp_path / "look", bucket.name, bucket.endpoint)
    bundle = packed(tools, CONTENT)
    sound(bucket, bundle)
    seen = tools.remote.records("svc", "prod").history().releases
    assert seen == _history(bundle).releases[: len(seen)]
    again = run(tmp_path, bucket, proxy, account)
    again.join(60)
    assert again.exitcode == 0, number
    assert whole(bucket, bundle) and store.bundle_key(bundle.digest) in bucket.keys("bundles/")
    assert tools.remote.records("svc", "prod").history() == _history(bundle)
    assert bucket.unfinished() == []


@pytest.mark.timeout(240)
def test_killed_at_points_all_over(tmp_path, account, proxy, bucket, record_property):
    """Four here; the full count is below."""
    total = requests_of_a_whole_run(tmp_path, account, proxy)
    assert total > 32 and len(CONTENT["m/1/big"]) > PART
    for n in range(4):
        kill_at(3 + n * (total - 6) // 4, tmp_path / str(n), account, proxy)
    record_property("killed", 4)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_killed_at_every_second_request(tmp_path, account, proxy, bucket, record_property):
    rng = random.Random(7)
    points = range(1, requests_of_a_whole_run(tmp_path, account, proxy) - 3, 2)
    for n in points:
        kill_at(n + rng.randrange(2), tmp_path / str(n), account, proxy)
    record_property("killed", len(points))
