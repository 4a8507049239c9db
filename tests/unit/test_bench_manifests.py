"""A measured replica is the release's own pod that nothing of the service selects, and all that is made for it ends with its Job."""

import dataclasses

import numpy as np
import pytest

from deployctl.core import kube_names, manifests
from deployctl.core.demand import constant
from deployctl.core.load_samples import Samples
from deployctl.core.manifests import bench
from deployctl.errors import ModelError
from deployctl.hosts.kubernetes import loadwire
from deployctl.ports import LoadRequest, LoadResult
from deployctl.testing import kube


def service():
    packed = kube.bundle()
    made = kube.plan(packed)
    return made, kube.inputs(packed, made)


def test_the_pod_is_the_releases_but_for_what_only_a_serving_one_needs():
    _, inputs = service()
    own = next(o for o in manifests.objects(inputs) if o["kind"] == "Deployment")["spec"]["template"]["spec"]
    run = bench.replica(inputs, "a1", lasts_s=60.0)
    pod = run.job["spec"]["template"]["spec"]
    mine, theirs = dict(pod["containers"][0]), dict(own["containers"][0])
    assert theirs.pop("lifecycle") and mine == theirs
    changed = {"containers", "restartPolicy", "terminationGracePeriodSeconds", "topologySpreadConstraints", "volumes"}
    assert {k: v for k, v in pod.items() if k not in changed} == {k: v for k, v in own.items() if k not in changed}
    assert [v["name"] for v in pod["volumes"]] == [v["name"] for v in own["volumes"]]


def test_nothing_of_the_service_selects_it():
    made, inputs = service()
    labels = bench.replica(inputs, "a1", lasts_s=60.0).job["spec"]["template"]["metadata"]["labels"]
    assert not kube_names.selector(made).items() <= labels.items()
    for item in manifests.objects(inputs):
        selector = item.get("spec", {}).get("selector", {})
        chosen = selector.get("matchLabels", selector) if isinstance(selector, dict) else {}
        assert not chosen or not chosen.items() <= labels.items(), item["kind"]


@pytest.mark.parametrize("key", [None, "k"])
def test_everything_made_for_it_is_owned_by_a_job_that_ends(key):
    _, inputs = service()
    run = bench.replica(inputs, "a1", lasts_s=61.5, admin_key=key)
    spec = run.job["spec"]
    assert (spec["activeDeadlineSeconds"], spec["backoffLimit"]) == (62, 0)
    assert spec["ttlSecondsAfterFinished"] > 0
    owned = run.owned("u1")
    assert {o["kind"] for o in owned} >= {"ConfigMap", "NetworkPolicy", "Service"}
    assert all(o["metadata"]["ownerReferences"][0]["uid"] == "u1" and o["metadata"]["name"] == run.name for o in owned)
    mounted = {v["configMap"]["name"] for v in run.job["spec"]["template"]["spec"]["volumes"] if "configMap" in v}
    assert mounted == {run.name}


def test_the_admin_interfaces_open_only_with_a_key_and_the_key_is_in_no_argument():
    _, inputs = service()
    closed = bench.replica(inputs, "a1", lasts_s=60.0).job["spec"]["template"]["spec"]["containers"][0]
    assert "--model-control-mode=none" in closed["args"] and "env" not in closed
    run = bench.replica(inputs, "a1", lasts_s=60.0, admin_key="secret-of-mine")
    opened = run.job["spec"]["template"]["spec"]["containers"][0]
    assert "--model-control-mode=explicit" in opened["args"] and "--model-control-mode=none" not in opened["args"]
    assert "secret-of-mine" not in str(run.job)
    assert [o["kind"] for o in run.others if "secret-of-mine" in str(o)] == ["Secret"]


def samples(n, rng):
    ok = rng.random(n) > 0.1
    return Samples(
        intended_s=np.sort(rng.random(n)), sent_s=rng.random(n), latency_s=np.where(ok, rng.random(n), np.nan), ok=ok,
        size=rng.integers(1, 9, n), error=np.where(ok, -1, 0), errors=("HTTP 503: full",),
    )  # fmt: skip


def test_a_result_comes_through_a_log_unchanged():
    result = LoadResult(samples=samples(5000, np.random.default_rng(1)), generator_cpu_ratio=0.25, late_sends=3, started_at_s=1.5, warmup_requests=9)
    reader, lines = loadwire.Reader(), [loadwire.progress_line("1 of 2 s"), *loadwire.result_lines(result)]
    assert max(map(len, lines)) < 16_000
    ends = [reader.feed(f"2026-01-01T00:00:00Z {line}") for line in ["something else", *lines]]
    assert ends == [False] * len(lines) + [True]
    assert reader.progress == "1 of 2 s"
    for field in dataclasses.fields(Samples):
        np.testing.assert_array_equal(getattr(reader.result.samples, field.name), getattr(result.samples, field.name))
    assert dataclasses.replace(reader.result, samples=result.samples) == result


@pytest.mark.parametrize("harm", [lambda lines: lines[1:], lambda lines: [lines[0].replace("A", "B"), *lines[1:]], lambda lines: lines[-1:]])
def test_a_log_that_lost_something_is_no_result(harm):
    result = LoadResult(samples=samples(5000, np.random.default_rng(2)), generator_cpu_ratio=0.2, late_sends=0, started_at_s=0.0, warmup_requests=0)
    reader = loadwire.Reader()
    with pytest.raises(ValueError, match=r"parts|damaged"):
        for line in harm(list(loadwire.result_lines(result))):
            reader.feed(line)


def test_an_error_keeps_its_words():
    reader = loadwire.Reader()
    assert reader.feed(loadwire.error_line(ModelError("no", why="because", hint="do", code="loadtest-refused")))
    assert reader.error == {"message": "no", "why": "because", "hint": "do", "code": "loadtest-refused"}


def test_a_request_comes_through_unchanged(tmp_path):
    request = LoadRequest(url="a.b.svc:8000", protocol="http", model="m", bodies=tmp_path / "x", demand=constant(7.0), duration_s=3.0, seed=5)
    assert loadwire.read_request(loadwire.request_text(request), tmp_path / "x") == request
