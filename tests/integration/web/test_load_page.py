"""The load report in a real browser: the verdict, the SLO line and the plots are there, and no request leaves the page."""

import http.server
import threading

import numpy as np
import pytest

from deployctl.core.demand import constant
from deployctl.core.judging import assess
from deployctl.core.load_samples import Samples
from deployctl.core.slo import Objective, Slo
from deployctl.report.load import LoadReport, Stage, document
from deployctl.report.load_page import render


@pytest.fixture
def page():
    rng, n = np.random.default_rng(0), 2000
    at = np.sort(rng.random(n)) * 20
    samples = Samples(
        intended_s=at,
        sent_s=at,
        latency_s=rng.gamma(4.0, 0.005, size=n),
        ok=np.ones(n, dtype=bool),
        size=np.ones(n, dtype=np.int64),
        error=np.full(n, -1),
        errors=(),
    )
    slo = Slo(objectives=(Objective(metric="latency", percentile=99.0, max=0.1),))
    report = LoadReport(
        name="search",
        at="2026-01-01 00:00:00 UTC",
        verdict=assess(samples, slo, rng=rng, offered_rps=100.0, duration_s=20.0),
        slo=slo,
        samples=samples,
        demand=constant(100.0),
        duration_s=20.0,
        stages=(Stage(name="compute", mean_s=0.01, note="known"),),
        replicas=((0.0, 1.0), (9.0, 2.0)),
        command="deployctl loadtest",
    )
    return render(document(report))


@pytest.fixture
def site():
    """Serves pages on loopback and remembers every request."""
    asked, pages = [], {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = pages.get(self.path, "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", pages, asked
    server.shutdown()
    server.server_close()


def test_opened_from_disk_it_shows_verdict_slo_line_and_plots(chromium, page, tmp_path):
    (tmp_path / "report.html").write_text(page)
    dom = chromium((tmp_path / "report.html").as_uri())
    assert 'class="verdict PASS"' in dom
    assert dom.count("<svg") == 4
    assert dom.count('<line class="slo"') == 2
    assert dom.count("SLO 100 ms") == 2
    assert dom.count('class="line') == 6
    assert "Where the time went" in dom


def test_no_request_leaves_the_page(chromium, page, site):
    address, pages, asked = site
    pages["/report.html"] = page
    dom = chromium(f"{address}/report.html")
    assert 'class="verdict PASS"' in dom
    assert asked == ["/report.html"]


def test_even_smuggled_content_could_not_call_out(chromium, page, site):
    # Were a text ever not escaped, the page's own policy would still stop it; the same content without the policy calls out.
    address, pages, asked = site
    smuggled = page.replace("</main>", f'<img src="{address}/leak.png"><script>fetch("{address}/leak")</script></main>')
    pages["/report.html"] = smuggled
    chromium(f"{address}/report.html")
    assert asked == ["/report.html"]
    pages["/open.html"] = smuggled.replace("Content-Security-Policy", "X-No-Policy")
    chromium(f"{address}/open.html")
    assert "/leak.png" in asked
