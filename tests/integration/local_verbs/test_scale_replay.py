"""`scale --replay` from the command line: with a trace and stated facts it needs no project, and it changes nothing."""

import pytest
from verbs_kit import LiveProject, run_in


@pytest.fixture
def trace(tmp_path):
    rows = [f"{second},{60 if 200 <= second < 400 else 20}" for second in range(600)]
    (tmp_path / "t.csv").write_text("\n".join(["second,requests", *rows]) + "\n")
    return str(tmp_path / "t.csv")


def test_a_replay_needs_no_project(tmp_path, trace):
    flags = ["--column", "requests", "--per", "1s", "--capacity", "10/s", "--start-up", "5s"]
    ran = run_in(tmp_path, "scale", "--replay", trace, *flags, "-o", "json")
    assert ran.code == 0 and [p["policy"] for p in ran.data["policies"]] == ["slo", "hpa"]
    page = tmp_path / "page.html"
    table = run_in(tmp_path, "scale", "--replay", trace, *flags, "--against", "", "--out", str(page))
    assert table.out.startswith("policy") and "minimum possible" in table.out and "hpa" not in table.out
    assert page.read_text().lstrip().lower().startswith("<!doctype html>")


def test_a_replay_says_what_it_lacks(tmp_path, trace):
    assert "config-not-found" in run_in(tmp_path, "scale", "--replay", trace).err
    project = LiveProject(tmp_path / "project")
    ran = project.run("scale", "--replay", trace, "--column", "requests", "--per", "1s", ok=(2,))
    assert "capacity-unknown" in ran.err and "--capacity" in ran.err
    assert "scale-usage" in project.run("scale", "3", "--replay", trace, ok=(2,)).err
    assert not (tmp_path / "project" / ".deployctl").exists()
