"""What advise says to do, and its screen: from figures, so that each case is one row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deployctl.cli._advise import WIDTH, table
from deployctl.cli.main import run
from deployctl.config.objects import read_objects
from deployctl.core import advise as core
from deployctl.core import kube_names
from deployctl.core.advise import Measured, Past
from deployctl.core.advise_words import advice
from deployctl.core.finding import Finding
from deployctl.core.fluid import Plant
from deployctl.core.signals import query
from deployctl.errors import NotFound, ProjectError
from deployctl.flows.advise import Asked, advise

PLANT = Plant(capacity_rps=16.0, start_up_s=60)


def figures(policy: str, hours: float, *, kept: bool, missed: float = 0.001, windows_ok: float = 0.995, breach_s: float = 60.0) -> dict:
    return {"policy": policy, "replica_hours": hours, "kept": kept, "regret": 1.2, "miss_ratio": missed, "windows_ok_ratio": windows_ok,
            "longest_breach_s": breach_s}  # fmt: skip


def past(missed: float = 0.0, hours: float = 15.0) -> Measured:
    return Measured(requests=500_000.0, replica_hours=hours, windows_missed_ratio=missed, peak_rps=84.8, largest_mean_response_s=54.9)


def now(error: float | None = 0.1, name: str = "HorizontalPodAutoscaler/embed") -> dict:
    return {"name": name, "assumed": [], "forecast_error_ratio": error, "min_replicas": 3}


@pytest.mark.parametrize(
    "present, ours, do, says",
    [
        (figures("a", 10, kept=False), figures("slo", 15, kept=True), "apply", "slo keeps the SLO where a breaks it, for 50 % more replica-hours"),
        (figures("a", 10, kept=True), figures("slo", 8, kept=True), "apply", "slo keeps the SLO as a does, for 20 % fewer replica-hours"),
        (figures("a", 10, kept=True), figures("slo", 12, kept=True), "keep", "a keeps the SLO too; slo would take 20 % more replica-hours"),
        (figures("a", 10, kept=True), figures("slo", 8, kept=False, breach_s=121), "keep", "121 s of misses in a row (at most 120 s)"),
        (
            figures("a", 10, kept=False, missed=0.02),
            figures("slo", 8, kept=False, windows_ok=0.98),
            "neither",
            "2.0 % of windows missed (1 % may be)",
        ),
        (None, figures("slo", 12, kept=True), "keep", "what is there keeps the SLO too"),
        (None, figures("slo", 16, kept=False, missed=0.011), "keep", "1.10 % of requests missed (1 % may be)"),
    ],
)
def test_what_to_do(present: dict | None, ours: dict, do: str, says: str) -> None:
    found = advice(past(hours=10.0), [present, ours] if present else [ours], now() if present else None, start_up_s=60.0)
    assert (found.do, says in found.why) == (do, True), found.why


def test_where_what_was_there_missed_ours_is_applied_and_a_replay_far_off_is_said() -> None:
    assert advice(past(missed=0.2), [figures("slo", 30, kept=True)], None, start_up_s=60.0).do == "apply"
    rows = [figures("a", 10, kept=False), figures("slo", 15, kept=True)]
    assert advice(past(), rows, now(0.25), start_up_s=60.0).caution == ""
    assert "26 % off" in advice(past(), rows, now(0.26), start_up_s=60.0).caution
    assert "not scraped" in advice(past(), rows, now(None), start_up_s=60.0).caution


def test_a_window_longer_than_the_data_is_cut_to_what_is_known() -> None:
    arrivals = np.array([np.nan] * 5 + [3.0, np.nan, 4.0] + [np.nan] * 2)
    found = core.known_part(Past(step_s=15.0, series={"arrivals_rps": arrivals, "replicas": np.arange(10.0)}))
    assert found is not None and found["replicas"].tolist() == [5.0, 6.0, 7.0] and found.known_ratio == pytest.approx(2 / 3)
    assert core.known_part(Past(step_s=15.0, series={"arrivals_rps": np.full(4, np.nan)})) is None


@pytest.mark.parametrize("model, name", [("embed", "embed-scaling"), ("Text_Encoder.v2", "text-encoder-v2-scaling"), ("7b", "model-7b-scaling")])
def test_the_objects_have_names_that_kubernetes_takes_and_no_aliases(model: str, name: str) -> None:
    objects = core.objects(PLANT, service=model, namespace="prod", selector="", deployment="d", low=1, high=4)
    assert {o["metadata"]["name"] for o in objects} == {name}
    assert len(read_objects(kube_names.yaml_documents(objects), where="apply.yaml")) == 2  # refuses aliases


def document(**changes: object) -> dict:
    rows = [figures("HorizontalPodAutoscaler/embed", 14.4, kept=False, missed=0.023, windows_ok=0.85), figures("slo", 20.6, kept=True)]
    objects = core.objects(PLANT, service="embed", namespace="prod", selector="", deployment="d", low=1, high=4, replaces="embed")
    return {
        "model": "embed", "asked_s": 86400.0, "window_s": 18000.0, "known_ratio": 0.97, "measured": past(0.15), "capacity_estimated": True,
        "replay": {"slo_s": 0.2, "policies": rows, "bound": {"clairvoyant_hours": 12.9}, "plant": {"capacity_rps": 16.0, "start_up_s": 60}},
        "present": now(), "advice": advice(past(0.15), rows, now(), start_up_s=60.0), "objects": objects,
        "findings": [Finding(name="cpu-is-not-late", severity="warn", message="HorizontalPodAutoscaler/embed: CPU", remedy="scale on arrivals")],
    } | changes  # fmt: skip


def test_the_screen_says_what_happened_what_was_possible_what_to_do_and_the_traps_in_this_order() -> None:
    text = table(document(), None)
    heads = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert [head.split(" ")[0] for head in heads] == ["What", "The", "Apply", "Objects", "Traps"]
    assert "in 5h, of 1d asked for; metrics are known for 97 % of it" in heads[0]
    assert max(len(line) for line in text.splitlines()) <= WIDTH + 4
    assert "slo keeps the SLO where HPA/embed breaks it, for 43 % more replica-hours" in " ".join(text.split())
    assert "same name" in text and "minReplicas is 1, and was 3" in text and "kubectl" not in text


def test_a_scaled_object_is_deleted_first_and_a_written_file_is_named() -> None:
    text = table(document(present=now(name="ScaledObject/embed")), "apply.yaml")
    assert "kubectl delete scaledobject embed -n prod" in text and "kubectl diff -f apply.yaml; kubectl apply -f apply.yaml" in text


class Series:
    """A Prometheus with one model that takes 50 ms and was busy."""

    def names(self, text: str, label: str) -> list[str]:
        return ["embed"]

    def history(self, text: str) -> list[tuple[float, float]]:
        known = {query(name, selector='model="embed"', window="60s"): value for name, value in {"response_s": 0.05, "queue_s": 0.0}.items()}
        return [(15.0 * i, known.get(text, 10.0)) for i in range(40)]


class Quiet:
    def step(self, message: str) -> None:
        """Nothing."""

    update = note = warn = step


def test_an_slo_below_what_the_model_takes_is_refused() -> None:
    with pytest.raises(ProjectError) as caught:
        advise(Series(), Quiet(), Asked(slo_s=0.01, capacity_rps=16.0))
    assert caught.value.code == "slo-out-of-reach" and "10 ms" in caught.value.message


def test_a_manifest_that_kubernetes_would_refuse_is_no_defect_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "hpa.yaml"
    metric = "{type: Resource, resource: {name: cpu, target: {averageUtilization: 90}}}"
    file.write_text(f"kind: HorizontalPodAutoscaler\nmetadata: {{name: embed}}\nspec: {{minReplicas: two, metrics: [{metric}]}}\n")
    with pytest.raises(ProjectError) as caught:
        advise(Series(), Quiet(), Asked(slo_s=1.0, manifests=(file,)))
    assert caught.value.code == "manifest-invalid" and "two" in str(caught.value.why)


@pytest.mark.parametrize("flag", ["--slo", "--window", "--step", "--capacity"])
def test_zero_is_a_usage_error(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"--slo": "1s", "--window": "1h", "--step": "15s", "--capacity": "4/s"} | {flag: "0/s" if flag == "--capacity" else "0s"}
    assert run(["advise", "--prometheus", "http://127.0.0.1:9", *(w for pair in words.items() for w in pair)]) == 2
    assert "is not above zero" in capsys.readouterr().err


def test_nothing_known_in_the_window() -> None:
    class Unknown(Series):
        def history(self, text: str) -> list[tuple[float, float]]:
            return [(15.0 * i, float("nan")) for i in range(40)]

    with pytest.raises(NotFound) as caught:
        advise(Unknown(), Quiet(), Asked(slo_s=1.0, capacity_rps=16.0))
    assert caught.value.code == "triton-history-missing"


def test_our_hpa_takes_the_place_of_the_present_one(tmp_path: Path) -> None:
    file = tmp_path / "hpa.yaml"
    metric = "{type: Resource, resource: {name: cpu, target: {averageUtilization: 90}}}"
    file.write_text(
        f"kind: HorizontalPodAutoscaler\nmetadata: {{name: own, namespace: prod}}\nspec: {{scaleTargetRef: {{name: d}}, metrics: [{metric}]}}\n"
    )
    rules, hpa = advise(Series(), Quiet(), Asked(slo_s=1.0, capacity_rps=16.0, manifests=(file,)))["objects"]
    assert hpa["metadata"] == {"name": "own", "namespace": "prod"} and rules["metadata"] == {"name": "embed-scaling", "namespace": "prod"}
    _, elsewhere = advise(Series(), Quiet(), Asked(slo_s=1.0, capacity_rps=16.0, manifests=(file,), namespace="other"))["objects"]
    assert elsewhere["metadata"]["namespace"] == "other"
