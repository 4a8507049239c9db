"""A live Prometheus that scrapes counters and evaluates the compiled rules records what the pure function wants."""

from __future__ import annotations

import json
import math
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployctl.adapters.prometheus import Prometheus
from deployctl.core import rules
from deployctl.core.decision import Observation, Reading, ScalingPolicy, Unknown
from deployctl.core.policies import slo

SETTINGS = ScalingPolicy(policy="slo", capacity_rps=5.0, start_up_s=3.0, sync_s=1.0, max_replicas=100)
OWN = '{service="live"}'


@pytest.fixture
def counters():
    """A /metrics page in Triton's format whose rate steps from 20 to 60 and back."""
    began = time.monotonic()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            t = time.monotonic() - began
            total = 20 * t + 40 * min(max(t - 8, 0.0), 6.0)
            lines = [f'nv_inference_request_success{{model="m",version="1"}} {total}', 'nv_inference_pending_request_count{model="m",version="1"} 0']
            body = ("\n".join(lines) + "\n").encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.mark.full
def test_recorded_and_pure_agree(prometheus_server, promtool: str, counters: int, tmp_path: Path) -> None:
    groups = rules.groups(SETTINGS, selector='model="m"', labels={"service": "live"}, scrape_s=1.0)
    (tmp_path / "rules.json").write_text(json.dumps({"groups": groups}))
    (tmp_path / "data").mkdir()
    scrape = {"job_name": "triton", "static_configs": [{"targets": [f"127.0.0.1:{counters}"]}]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(tmp_path / "rules.json")],
        "scrape_configs": [scrape],
    }
    subprocess.run([promtool, "check", "rules", str(tmp_path / "rules.json")], check=True, capture_output=True)
    with prometheus_server(tmp_path, json.dumps(config)) as url:
        time.sleep(26)
        source = Prometheus(url, end_s=time.time(), window_s=24, step_s=1.0)
        series = {name: [v for _, v in source.history(f"{name}{OWN}")] for name in (rules.MEAN, rules.PEAK, rules.WANTED)}
    state, told, recorded = slo.initial_state(), [], []
    for mean, peak, wanted in zip(*series.values(), strict=True):
        if math.isnan(mean) or math.isnan(peak) or math.isnan(wanted):
            continue
        seen = Observation(
            at_s=0.0, readings={"arrivals_rps": Reading(value=mean), "arrivals_peak_rps": Reading(value=peak)}, replicas_ready=1, replicas_wanted=1
        )
        decision, state = slo.decide(seen, state, SETTINGS, float(len(told)))
        assert not isinstance(decision, Unknown)
        told.append(decision.evidence["wanted_replicas"])
        recorded.append(wanted)
    assert len(recorded) >= 12
    assert max(recorded) > min(recorded)
    # Queries fall between evaluations, so a change may be seen one tick apart; the values are the same.
    assert set(recorded) <= set(told) | {recorded[0]}
    assert sum(a == b for a, b in zip(told, recorded, strict=True)) >= 0.75 * len(recorded)
