"""The compiled policy on real replicas: a load step up and back; traces at a bounded rate."""

import pytest
from local_kit import Load

from deployctl.adapters import processes
from deployctl.adapters.otlp import OtlpReceiver
from deployctl.adapters.spanstore import SpanStore
from deployctl.core.decision import ScalingPolicy

pytestmark = pytest.mark.triton

SCALING = ScalingPolicy(min_replicas=1, max_replicas=4, target=0.6, signal="busy_ratio", sync_s=3.0, scale_up_window_s=0.0, scale_down_window_s=12.0)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_replicas_follow_a_step_of_four_and_back_without_flapping(project):
    """s(b) = 100 ms + 0.5 ms · b without batching mates: 4.5 requests/s keep 0.45 of a replica busy, four times as many 1.8."""
    project.release(project.bundle(t0_s=0.1, max_batch=1), scaling=SCALING)
    status = project.serving(1, 1)
    numbers = []

    def follow(s):
        if not numbers or numbers[-1] != s.replicas_wanted:
            numbers.append(s.replicas_wanted)
        return s

    with Load(status, "http", 4.5) as low:
        low.wait_for(60)
        project.wait(lambda s: follow(s).replicas_wanted == 1)
        with Load(status, "http", 13.5) as high:
            project.wait(lambda s: follow(s).replicas_wanted >= 3 and sum(r.state == "ready" for r in s.replicas) >= 3)
            for _ in range(6):
                high.wait_for(60)
                follow(project.target.status())
            top = numbers[-1]
        project.wait(lambda s: follow(s).replicas_wanted == 1, timeout_s=180)
        low.wait_for(60)
        follow(project.target.status())
    assert low.failures == high.failures == []
    assert top in (3, 4)
    peak = numbers.index(max(numbers))
    assert numbers[: peak + 1] == sorted(numbers[: peak + 1]), f"it went down while it should go up: {numbers}"
    assert numbers[peak:] == sorted(numbers[peak:], reverse=True), f"it went up while it should go down: {numbers}"


@pytest.fixture
def collector(monkeypatch):
    """Spans that were sent on, to where the supervisor's environment says."""
    spans = []
    receiver = OtlpReceiver(spans.extend)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url.removesuffix("/v1/traces"))
    yield spans
    receiver.stop()


def test_traces_one_request_in_a_hundred_and_sends_them_on(project, collector):
    release = project.release(project.bundle(t0_s=0.0), trace_ratio=1.0)  # asked for all; the product allows 1 in 100
    with Load(project.serving(release.revision, 1), "http", 100) as load:
        load.wait_for(250)
    assert load.failures == []
    store = SpanStore(project.folder.store)
    try:
        assert processes.wait_for(lambda: len({s.trace_id for s in store.spans()}) >= 2, 30)
        traces = {s.trace_id for s in store.spans()}
        assert len(traces) <= len(load.answers) // 100 + 2
        assert any(s.name == "InferRequest" for s in store.spans())
        assert processes.wait_for(lambda: {s.span_id for s in collector} >= {s.span_id for s in store.spans()}, 30)
    finally:
        store.close()
