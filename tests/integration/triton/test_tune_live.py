"""tune on a real Triton: proves, writes, repeats nothing; and writes nothing when it must not."""

import dataclasses
import json
import shutil

import pytest
import sleep_project

from deployctl import config
from deployctl.config import locks
from deployctl.core import codec
from deployctl.core.evidence import Evidence, EvidenceKey
from deployctl.core.forecast import Forecast
from deployctl.core.planner import demand_for
from deployctl.core.verdict import Verdict
from deployctl.errors import SloUnreachable
from deployctl.flows import tune as tuning
from deployctl.flows._gather import sample_sizes
from deployctl.flows._probe import Bench, probing
from deployctl.flows._profile import profile
from deployctl.flows.package import package
from deployctl.wiring import LazyToolbox

pytestmark = [pytest.mark.triton, pytest.mark.timeout(280)]


class Quiet:
    """Progress that remembers."""

    def __init__(self):
        self.said = []

    def step(self, message):
        self.said.append(message)

    note = warn = update = step


def opened(folder):
    project = config.load(folder)
    tools = LazyToolbox(folder)
    return project, tools, package(project, tools, Quiet())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sleep_project.write(tmp_path_factory.mktemp("nap"))


@pytest.fixture(scope="module")
def measured(folder):
    """The profile of the sleeping model; its parts stay in the project's cache."""
    project, tools, bundle = opened(folder)
    cpus = tools.launcher.cpus()
    split = (cpus[:-1], cpus[-1:]) if len(cpus) > 1 else ((), ())
    bench = Bench(
        tools=tools,
        progress=Quiet(),
        bundle=bundle,
        demand=demand_for(project, sample_sizes(tools, bundle)),
        limit_s=project.slo.latency.max,
        server_cpus=split[0],
        client_cpus=split[1],
    )
    with probing(bench, fresh=False) as probes:
        return profile(probes), probes.live


def test_the_profile_is_the_law_that_the_model_sleeps_by(measured):
    stage = measured[0].stages[0]
    assert [p.batch for p in stage.points] == [1, 2, 4, 8, 16]
    assert all(p.size == 1 and p.count >= 1 for p in stage.points)
    # Sleeping never ends early and on a busy machine late; waiting for a core before and after it counts only where nothing else is there.
    ratios = [p.mean_s / (0.012 + 0.002 * p.batch) for p in stage.points]
    # On a busy one the waiting is taken off, which is a little too much (`profiling.net`): 0.88 was seen at a load of five a core.
    assert all(r >= 0.75 for r in ratios), ratios
    means = [p.mean_s for p in stage.points]
    assert means[-1] > means[0]
    assert stage.joins_sizes and stage.cpu_ratio < 0.9
    (split,) = measured[0].splits  # by spans, of one size
    assert split.model == "nap" and split.size == 1 and split.requests == 6
    assert split.compute_s >= 0.014 and split.queue_s < split.compute_s
    cold = measured[0].cold_start
    assert (
        min(cold.process_s, cold.load_s + cold.warmup_s, cold.first_reply_s) > 0 <= cold.warmup_s
        and measured[0].interference[0].slowdown_ratio >= 1.0
    )


def test_what_was_measured_is_not_measured_again(folder, measured):
    assert measured[1] >= 4
    project, tools, bundle = opened(folder)
    demand = demand_for(project, sample_sizes(tools, bundle))
    cpus = tools.launcher.cpus()
    bench = Bench(tools=tools, progress=Quiet(), bundle=bundle, demand=demand, limit_s=1.0, server_cpus=cpus[:-1], client_cpus=cpus[-1:])
    with probing(bench, fresh=False) as probes:
        again = profile(probes)
        assert probes.live == 0 and probes._server is None
    assert again == measured[0]


def test_another_release_starts_from_the_earlier_profile_and_is_proven_all_the_same(measured, tmp_path):
    """The earlier profile is given as the law itself, so that only the new release's few points are measured here."""
    project, tools, bundle = opened(sleep_project.write(tmp_path / "next", t0_s=0.030, a_s=0.005))
    earlier = as_law(measured[0], 0.012, 0.002)
    tools.evidence.save(proof_with(earlier, project, tools, bundle))
    talk = Quiet()
    found = tuning.tune(project, tools, talk, env="local", bundle=bundle).evidence
    assert found.profile.scaled_from == earlier.bundle, talk.said
    assert found.verdict.result == "PASS" and found.key.bundle == bundle.digest == found.profile.bundle
    assert found.probes == 3 < measured[1]  # a few points, the cold start, and the load test
    points = {p.batch: p.mean_s for p in found.profile.stages[0].points}
    assert points[16] > 2 * points[1] and all(p.count == 0 for p in found.profile.stages[0].points)


@pytest.mark.full
def test_an_earlier_profile_that_does_not_fit_is_measured_over(folder, measured, tmp_path):
    shutil.copytree(folder, copy := tmp_path / "copy")  # with its measurements
    project, tools, bundle = opened(copy)
    law = as_law(measured[0], 0.012, 0.002)
    stage = law.stages[0]
    odd = dataclasses.replace(stage, points=tuple(dataclasses.replace(p, mean_s=p.mean_s * (5 if p.batch == 2 else 1)) for p in stage.points))
    tools.evidence.save(proof_with(dataclasses.replace(law, stages=(odd,)), project, tools, bundle))
    talk = Quiet()
    found = tuning.tune(project, tools, talk, env="local", bundle=bundle).evidence
    assert found.profile.scaled_from == "" and any("no earlier profile fits" in text for text in talk.said)
    assert found.verdict.result == "PASS" and found.probes == 2


def as_law(known, t0_s, a_s):
    stage = known.stages[0]
    points = tuple(dataclasses.replace(p, mean_s=t0_s + a_s * p.batch, std_s=0.0002) for p in stage.points)
    return dataclasses.replace(known, stages=(dataclasses.replace(stage, points=points),), bundle="sha256:" + "e" * 64)


def proof_with(known, project, tools, bundle):
    demand = demand_for(project, sample_sizes(tools, bundle))
    key = EvidenceKey(bundle=known.bundle, device=known.device, triton_version=known.triton_version, demand=demand, slo=project.slo)
    forecast = Forecast(p50_s=0.02, p95_s=0.03, p99_s=0.04, utilisation_ratio=0.0, throughput_rps=0.0, method="simulation")
    verdict = Verdict(result="PASS", objectives=(), requests=0, failed=0, late_sends=0, offered_rps=0.0, reached_rps=0.0)
    return Evidence(key=key, settings={}, replicas=1, profile=known, forecast=forecast, verdict=verdict, error_ratio=None, probes=9, versions={})


def test_infeasible_by_forecast_writes_nothing(folder, measured, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "deploy.yaml").write_text(sleep_project.DEPLOY.format(slo="11ms", rate="20/s"))
    project, tools, bundle = opened(copy)
    with pytest.raises(SloUnreachable) as error:
        tuning.tune(project, tools, Quiet(), env="local", bundle=bundle)
    assert error.value.exit_code == 96 and "settings" in error.value.why
    assert error.value.candidates and not any(e.keeps for e in error.value.candidates)
    assert error.value.candidates[0].why in error.value.why  # the nearest is the one that the message names
    busy = measured[0].of_busy_machine  # then a quieter one is the first thing to try
    assert error.value.hint.startswith("deployctl tune --fresh") is busy and ("other work took" in error.value.why) is busy
    assert not tools.workspace.lock("local").exists() and not list((copy / "lock").rglob("*.json"))


def test_a_proof_is_written_and_then_reused(folder, measured):
    project, tools, bundle = opened(folder)
    talk = Quiet()
    found = tuning.tune(project, tools, talk, env="local", bundle=bundle)
    assert found.evidence.verdict.result == "PASS" and not found.reused
    assert found.evidence.forecast.percentile_s > 0.012 and found.evidence.error_ratio is not None
    lock = locks.read(tools.workspace.lock("local"), "local")
    assert lock.bundle == bundle.digest and lock.tuned.settings == found.evidence.settings
    assert lock.tuned.evidence == found.evidence.digest and 0 < lock.tuned.target <= 1 and lock.tuned.max_replicas == 2
    stored = json.loads(next((folder / "lock" / "evidence").glob("*.json")).read_text())
    assert stored == json.loads(codec.dumps(found.evidence))
    again = tuning.tune(project, tools, Quiet(), env="local", bundle=bundle)
    assert again.reused and again.evidence == found.evidence
    assert not list((folder / ".deployctl" / "tune").iterdir())
