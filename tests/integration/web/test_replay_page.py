"""The replay page in a real browser: verdict, SLO line and plots are there, breaches are shaded, nothing is asked of anybody."""

import re
from dataclasses import replace

import numpy as np
import pytest

from deployctl.core import replay, traces
from deployctl.core.fluid import Plant
from deployctl.report.replay import document
from deployctl.report.replay_page import render


@pytest.fixture(scope="module")
def page():
    plant = Plant(capacity_rps=40.0, start_up_s=60)
    rate = 120 + 60 * np.sin(np.arange(7200) / 700) + np.where(np.arange(7200) % 2400 < 240, 200.0, 0.0)
    trace = traces.Trace(name="day <b>&.csv", arrivals=traces.poisson(rate, seed=1))
    settings = [replay.peer("slo", plant), replace(replay.peer("hpa", plant), target=0.95)]
    runs = [replay.replay(trace, plant, s) for s in settings]
    return render(document(trace, plant, runs, replay.yardstick(trace, plant), slo_s=1.0), runs, plant)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_there_and_nothing_leaves_the_page(page, chromium, tmp_path, scheme):
    file = tmp_path / "replay.html"
    file.write_text(page)
    flags = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    seen = chromium(f"file://{file}", *flags)
    text = re.sub(r"<[^>]+>", " ", seen)
    assert "minimum possible" in text and "without foresight" in text and "SLO 1 s" in text
    assert seen.count("<svg") == 8
    assert seen.count('class="line') >= 12
    assert 'class="band"' in seen
    assert "day &lt;b&gt;&amp;.csv" in seen
    assert not re.search(r"""(src|href)=["'](?!data:)""", seen)
    assert len(page.encode()) < 300_000
