"""deploy.yaml to a Project: what is accepted, where complaints point, and that nothing else ever comes out."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from deployctl.config import load, schema, show, units
from deployctl.config.loader import default_name, project_from
from deployctl.config.tree import MAX_DEPTH, parse
from deployctl.core import codec
from deployctl.core.demand import RateStep, SizeShare
from deployctl.core.project import DistillSpec, Project
from deployctl.errors import ProjectError

HERE = Path(__file__).parent
MODEL = f'model: {{source: "onnx:{Path(__file__).name}"}}'
SLO = "slo: {latency: {p99: 100ms}}"
TRAFFIC = "traffic: {rate: 40/s}"
THREE = f"{MODEL}\n{SLO}\n{TRAFFIC}\n"

EXAMPLE = f"""\
version: 1
name: sentence-search
model: {{source: "onnx:{Path(__file__).name}", sample: {Path(__file__).name}}}
slo: {{latency: {{p99: 100ms, p50: 20ms}}, errors: 0.1%, at: gateway, window: 10min}}
traffic: {{rate: 40/s, arrivals: gamma, cv: 2, mix: {{16: 70%, 128: 30%}}, repeat: 5%}}
compress: {{fidelity: {{min: 0.99}}, try: [fp32, int8-dynamic], distill: {{keep: 70%, steps: 40, learning_rate: 0.00001, seed: 7, time: 2min}}}}
environments:
  local:
  prod:
    on: kubernetes
    context: prod
    namespace: search
    pool: gpu-l4
    limits: {{replicas: 2..12, cost: 40 USD/day}}
    store: s3://bucket/prefix
    ports: {{http: 0, grpc: 0}}
    scaling: {{policy: hpa, target: 0.7, sync: 30s, tolerance: 5%, scale_up_window: 1min, scale_down_window: 1h}}
    serves_people: true
"""


def project(text: str, folder: Path = HERE) -> Project:
    return project_from(parse(text.encode(), "deploy.yaml"), folder)


def complaint(text: str, folder: Path = HERE) -> ProjectError:
    with pytest.raises(ProjectError) as caught:
        project(text, folder)
    return caught.value


def test_three_lines_are_enough():
    made = project(THREE, HERE)
    assert made.name == "unit"
    assert [e.name for e in made.environments] == ["local"]
    assert made.traffic.steps == (RateStep(start_s=0.0, rate_rps=40.0),)
    assert made.slo.latency.percentile == 99.0
    assert made.slo.latency.max == 0.1
    assert made.slo.error_max_ratio == 0.01


def test_every_key_arrives():
    made = project(EXAMPLE)
    prod = made.environment("prod")
    assert [(o.metric, o.percentile, o.max, o.window_s, o.at) for o in made.slo.objectives] == [
        ("latency", 50.0, 0.02, 600.0, "gateway"),
        ("latency", 99.0, 0.1, 600.0, "gateway"),
        ("errors", None, 0.001, 600.0, "gateway"),
    ]
    assert (made.traffic.arrivals, made.traffic.cv, made.traffic.repeat_ratio) == ("gamma", 2.0, 0.05)
    assert made.traffic.mix == (SizeShare(size=16, share_ratio=0.7), SizeShare(size=128, share_ratio=0.3))
    assert (made.compress.methods, made.compress.gate) == (("fp32", "int8-dynamic"), 0.99)
    assert made.compress.distill == DistillSpec(keep_ratio=0.7, steps=40, learning_rate=0.00001, seed=7, limit_s=120.0)
    assert (prod.on, prod.context, prod.namespace, prod.pool, prod.store) == ("kubernetes", "prod", "search", "gpu-l4", "s3://bucket/prefix")
    assert (prod.limits.min_replicas, prod.limits.max_replicas, prod.limits.cost_per_day, prod.limits.currency) == (2, 12, 40.0, "USD")
    assert (prod.ports.http, prod.ports.grpc, prod.serves_people) == (0, 0, True)
    assert (prod.scaling.target, prod.scaling.sync_s, prod.scaling.tolerance_ratio) == (0.7, 30.0, 0.05)
    assert (prod.scaling.scale_up_window_s, prod.scaling.scale_down_window_s) == (60.0, 3600.0)


def test_every_value_knows_where_it_came_from():
    made = project(EXAMPLE)
    assert set(made.origins) == set(show.values(made))
    assert made.origins["slo.latency.p99"] == "deploy.yaml:4:22"
    assert made.origins["environments.prod.limits.cost"] == "deploy.yaml:14:37"
    assert made.origins["environments.local.ports.http"] == "default"
    assert made.origins["traffic.arrivals"] == "deploy.yaml:5:33"
    assert project(THREE).origins["traffic.arrivals"] == "default"


def test_a_project_survives_its_record():
    made = project(EXAMPLE)
    assert codec.loads(Project, codec.dumps(made)) == made


def nested(rows: list[show.Row]) -> dict:
    """The rows of `config show` as a deploy.yaml again."""
    tree: dict = {}
    for row in rows:
        if row.value is None:
            continue
        *parents, last = row.key.split(".") if not row.key.startswith("slo.latency.") else ["slo", "latency", row.key.removeprefix("slo.latency.")]
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = row.value
    return tree


@pytest.mark.parametrize(
    "text", [THREE, EXAMPLE, f"{MODEL}\nslo: {{latency: {{p99.9: 1s}}}}\ntraffic: {{steps: [{{at: 0s, rate: 1/s}}, {{at: 1min, rate: 3/s}}]}}\n"]
)
def test_what_show_prints_can_be_written_back(text):
    import io
    from dataclasses import replace

    made = project(text)
    buffer = io.StringIO()
    YAML(typ="safe", pure=True).dump(nested(show.rows(made)), buffer)
    assert replace(project(buffer.getvalue()), origins={}) == replace(made, origins={})


@pytest.mark.parametrize(
    ("text", "place", "code", "words"),
    [
        (THREE + "limits: {replicas: 3}\n", "4:1", "config-unknown-key", "unknown key 'limits'"),
        (THREE + "enviroments: {}\n", "4:1", "config-unknown-key", "did you mean environments?"),
        (f"{MODEL}\nslo: {{latncy: {{p99: 1s}}}}\n{TRAFFIC}\n", "2:7", "config-unknown-key", "did you mean latency?"),
        (f"{MODEL}\n{SLO}\n", "1:1", "config-missing-key", "has no traffic"),
        (f"{MODEL}\nslo: {{errors: 1%}}\n{TRAFFIC}\n", "2:1", "config-missing-key", "slo has no latency"),
        (f"{MODEL}\nslo: {{latency: {{}}}}\n{TRAFFIC}\n", "2:16", "config-missing-key", "at least one latency objective"),
        (f"{MODEL}\nslo: {{latency: {{p99: 10ms, p50: 20ms}}}}\n{TRAFFIC}\n", "2:16", "config-invalid", "p99 may not be stricter than p50"),
        (f"{MODEL}\nslo: {{latency: {{p99: 10ms, p99.0: 20ms}}}}\n{TRAFFIC}\n", "2:16", "config-invalid", "stands twice"),
        (f"{MODEL}\nslo: {{latency: {{p999: 10ms}}}}\n{TRAFFIC}\n", "2:17", "config-invalid", "did you mean p99.9?"),
        (f"{MODEL}\nslo: {{latency: [10ms]}}\n{TRAFFIC}\n", "2:16", "config-invalid", "a mapping is needed here"),
        (f"{MODEL}\nslo: {{latency: {{p99: [1s]}}}}\n{TRAFFIC}\n", "2:22", "config-invalid", "not a list"),
        (f"{MODEL}\n{SLO}\ntraffic: {{rate: 40}}\n", "3:17", "config-invalid", "'40' is not a rate"),
        (f"{MODEL}\n{SLO}\ntraffic: {{rate: 0/s}}\n", "3:17", "config-invalid", "more than zero"),
        (f"{MODEL}\n{SLO}\ntraffic: 40/s\n", "3:10", "config-invalid", "a mapping is needed here"),
        (f"{MODEL}\n{SLO}\ntraffic:\n", "3:1", "config-missing-key", "no traffic is stated"),
        (f"{MODEL}\n{SLO}\ntraffic: {{rate: 1/s, steps: [{{at: 0s, rate: 1/s}}]}}\n", "3:29", "config-invalid", "exclude each other"),
        (f"{MODEL}\n{SLO}\ntraffic: {{steps: []}}\n", "3:18", "config-invalid", "must start at 0s"),
        (f"{MODEL}\n{SLO}\ntraffic: {{steps: [{{at: 0s, rate: 0/s}}]}}\n", "3:18", "config-invalid", "zero throughout"),
        (
            f"{MODEL}\n{SLO}\ntraffic: {{steps: [{{at: 0s, rate: 1/s}}, {{at: 0s, rate: 1/s}}]}}\n",
            "3:45",
            "config-invalid",
            "later than the one before",
        ),
        (f"{MODEL}\n{SLO}\ntraffic: {{rate: 1/s, per: 1s}}\n", "3:27", "config-invalid", "belongs to a trace"),
        (f"{MODEL}\n{SLO}\ntraffic: {{rate: 1/s, cv: 2}}\n", "3:26", "config-invalid", "cv belongs to gamma or weibull"),
        (f"{MODEL}\n{SLO}\ntraffic: {{rate: 1/s, arrivals: poison}}\n", "3:32", "config-invalid", "did you mean poisson?"),
        (f"{MODEL}\n{SLO}\ntraffic: {{rate: 1/s, mix: {{16: 70%, 128: 20%}}}}\n", "3:27", "config-invalid", "add to 90%"),
        (f"{MODEL}\n{SLO}\ntraffic: {{rate: 1/s, mix: {{016: 100%}}}}\n", "3:28", "config-invalid", "starts with 0"),
        (f"{MODEL}\n{SLO}\ntraffic: {{trace: none.csv}}\n", "3:18", "config-file-missing", "there is no file none.csv"),
        (f"model: {{source: onnx:no.onnx}}\n{SLO}\n{TRAFFIC}\n", "1:17", "config-file-missing", "there is no file no.onnx"),
        (f"model: {{source: triton:no}}\n{SLO}\n{TRAFFIC}\n", "1:17", "config-file-missing", "there is no folder no"),
        (
            f"model: {{source: 'python:no_such_module_here:build'}}\n{SLO}\n{TRAFFIC}\n",
            "1:17",
            "config-file-missing",
            "no_such_module_here.py is missing",
        ),
        (f"model: {{source: 'python:a b'}}\n{SLO}\n{TRAFFIC}\n", "1:17", "config-invalid", "must name a module and a function"),
        (f"model: {{source: 'pyhton:a:b'}}\n{SLO}\n{TRAFFIC}\n", "1:17", "config-invalid", "did you mean python?"),
        (f"model: {{source: 'triton:.', pooling: mean}}\n{SLO}\n{TRAFFIC}\n", "1:38", "config-invalid", "pooling is for an onnx: source"),
        (f"model: {{source: 'triton:.', sample: no.jsonl}}\n{SLO}\n{TRAFFIC}\n", "1:37", "config-file-missing", "there is no file no.jsonl"),
        (THREE + "version: 2\n", "4:10", "config-version", "version '2' is not known"),
        (THREE + "name: Search\n", "4:7", "config-invalid", "lower-case"),
        (THREE + "name:\n", "4:1", "config-invalid", "name has no value"),
        (THREE + "environments: {local: {ports: {http: }}}\n", "4:32", "config-invalid", "http has no value"),
        (THREE + "environments: {local: {ports: {http: 70000}}}\n", "4:38", "config-invalid", "outside 0..65535"),
        (THREE + "environments: {local: {ports: {http: 9000, grpc: 9000}}}\n", "4:31", "config-invalid", "cannot share port 9000"),
        (THREE + "environments: {local: {pool: l4}}\n", "4:30", "config-invalid", "belongs to an environment on kubernetes"),
        (THREE + "environments: {local: {limits: {replicas: ..0}}}\n", "4:43", "config-invalid", "0 replicas"),
        (THREE + "environments: {local: {serves_people: yes}}\n", "4:39", "config-invalid", "'yes' is not true or false"),
        (THREE + "environments: {Prod: {}}\n", "4:16", "config-invalid", "lower-case"),
        (THREE + "environments: [local]\n", "4:15", "config-invalid", "a mapping is needed here"),
        (THREE + "compress: {try: []}\n", "4:17", "config-invalid", "is empty"),
        (THREE + "compress: {try: [fp32, fp32]}\n", "4:17", "config-invalid", "named twice"),
        (THREE + "compress: {try: fp32}\n", "4:17", "config-invalid", "a list is needed here"),
        (THREE + "compress: {fidelity: {min: 98}}\n", "4:28", "config-invalid", "more than the whole"),
        (THREE + "compress: {distill: {keep: 100%}}\n", "4:28", "config-invalid", "not all of them"),
        (THREE + "compress: {distill: {keep: 0%}}\n", "4:28", "config-invalid", "keeps some blocks"),
        (THREE + "compress: {distill: {steps: 0}}\n", "4:29", "config-invalid", "outside 1..1000000"),
        (THREE + "compress: {distill: {learning_rate: 3e-4}}\n", "4:37", "config-invalid", "not a plain number"),
        (THREE + "slo: {latency: {p99: 1s}}\n", "4:1", "config-duplicate-key", "stands twice; the first is on line 2"),
        ("a: &x 1\n", "1:4", "config-yaml-feature", "anchor &x"),
        ("a: *x\n", "1:4", "config-yaml-feature", "alias *x"),
        ("<<: {a: 1}\n", "1:1", "config-yaml-feature", "merge key"),
        ("a: !!str 1\n", "1:4", "config-yaml-feature", "tag"),
        ("a: 1\n---\nb: 1\n", "2:1", "config-yaml-feature", "second document"),
        ("a: [1, 2\n", "2:1", "config-syntax", "not YAML"),
        ("? [a]\n: 1\n", "1:3", "config-syntax", "a key must be a word"),
        ("- a\n", "1:1", "config-syntax", "must be a mapping"),
        ("a: \x07\n", "1:4", "config-syntax", "control character"),
        ("", "1:1", "config-empty", "empty"),
        ("# nothing\n", "1:1", "config-empty", "empty"),
        ("a: " + "[" * (MAX_DEPTH + 1), "1:67", "config-yaml-feature", "nested deeper"),
    ],
)
def test_complaints_point_at_the_place(text, place, code, words):
    error = complaint(text)
    assert (error.where, error.code) == (f"deploy.yaml:{place}", code)
    assert words in error.message
    assert error.hint
    assert error.exit_code == 2
    lines = error.message.splitlines()
    if len(lines) > 1:
        line, column = map(int, place.split(":"))
        shown, caret = lines[1], lines[2]
        assert len(lines) == 3
        assert caret.index("^") - shown.index("|") - 2 == column - 1 or len(text.splitlines()[line - 1]) > 100


def test_the_misspelt_key_is_told_before_the_missing_one():
    assert complaint(f"modle: {{}}\n{SLO}\n{TRAFFIC}\n").code == "config-unknown-key"


def test_further_problems_are_counted_with_their_places():
    error = complaint(f"{MODEL}\nslo: {{latency: {{p99: 1}}}}\ntraffic: {{rate: 1}}\n")
    assert error.why == "also wrong: deploy.yaml:3:17"


def test_too_large_not_utf8_not_there(tmp_path):
    with pytest.raises(ProjectError, match="at most 1000000"):
        parse(b"#" * 1_000_001, "deploy.yaml")
    with pytest.raises(ProjectError, match="not UTF-8: byte 0xff at offset 3") as caught:
        parse(b"a:\n\xff", "deploy.yaml")
    assert caught.value.where == "deploy.yaml:2:1"
    with pytest.raises(ProjectError) as caught:
        load(tmp_path)
    assert caught.value.code == "config-not-found"
    (tmp_path / "deploy.yaml").mkdir()
    with pytest.raises(ProjectError) as caught:
        load(tmp_path)
    assert caught.value.code == "config-unreadable"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    file = tmp_path / "deploy.yaml"
    (tmp_path / "m.onnx").touch()
    file.write_bytes(b"\xef\xbb\xbf" + f"model: {{source: onnx:m.onnx}}\r\n{SLO}\r\n{TRAFFIC}\r\n".encode())
    assert load(file).origins["slo.latency.p99"] == "deploy.yaml:2:22"


def test_yaml_traps_stay_text():
    """What YAML 1.1 readers turn into False, a number of seconds, an octal or a float is what was written, or refused."""
    assert project(THREE + "name: no\n").name == "no"
    assert complaint(THREE + "name: 12:30:00\n").code == "config-invalid"
    assert project(THREE + "environments: {on: {}, off: {}, y: {}}\n").environment("on").on == "local"
    assert complaint(THREE + "environments: {local: {ports: {http: 1e3}}}\n").code == "config-invalid"
    assert complaint(THREE + "environments: {local: {ports: {http: 0o17}}}\n").code == "config-invalid"


def test_long_lines_are_cut_around_the_caret_and_escapes_are_not_sent_to_the_terminal():
    error = complaint(THREE + "compress: {try: [" + ", ".join(f"variant-{i}" for i in range(200)) + ", 'a b']}\n")
    assert all(len(line) < 130 for line in error.message.splitlines())
    error = complaint(THREE + 'name: "\\e[31m"\n')
    assert "\x1b" not in error.message


@pytest.mark.parametrize(
    ("folder", "name"),
    [("demo", "demo"), ("My Model_2", "my-model-2"), ("42", "service"), ("--", "service"), ("Ünïcode", "n-code"), ("a" * 90, "a" * 40)],
)
def test_the_folder_names_the_service(folder, name):
    assert default_name(Path("/x") / folder) == name


def test_counts_and_send_times_from_csv(tmp_path):
    (tmp_path / "m.onnx").touch()
    (tmp_path / "day.csv").write_text("at,count\n0,60\n60,120\n\n120,0\n")
    (tmp_path / "sends.csv").write_text("sent\n10.0\n10.5\n12.25\n")
    (tmp_path / "iso.csv").write_text("when,who\n2026-01-31T12:00:00,a\n2026-01-31T12:00:02.5,b\n")
    head = f"model: {{source: onnx:m.onnx}}\n{SLO}\n"
    made = project(head + "traffic: {trace: day.csv, column: count, per: 60s}\n", tmp_path).traffic
    assert [(s.start_s, s.rate_rps) for s in made.steps] == [(0, 1), (60, 2), (120, 0)]
    assert (made.arrivals, made.trace_times_s) == ("poisson", None)
    made = project(head + "traffic: {trace: sends.csv}\n", tmp_path).traffic
    assert (made.arrivals, made.trace_times_s) == ("trace", (0.0, 0.5, 2.25))
    assert [(s.start_s, s.rate_rps) for s in made.steps] == [(0, 2), (1, 0), (2, 1)]
    assert project(head + "traffic: {trace: iso.csv, column: when}\n", tmp_path).traffic.trace_times_s == (0.0, 2.5)


@pytest.mark.parametrize(
    ("csv", "rest", "where", "words"),
    [
        ("at,count\n0,many\n", "column: count, per: 1s", "t.csv:2", "'many' is not a count"),
        ("at,count\n0,-1\n", "column: count, per: 1s", "t.csv:2", "is not a count"),
        ("at,count\n0,nan\n", "column: count, per: 1s", "t.csv:2", "is not a count"),
        ("at,count\n0\n", "column: count, per: 1s", "t.csv:2", "has 1 columns, not 2"),
        ("at,count\n", "column: count, per: 1s", "deploy.yaml:3:18", "has no rows"),
        ("at,count\n0,1\n", "column: rate, per: 1s", "deploy.yaml:3:18", "no column 'rate'"),
        ("at,count\n0,1\n", "per: 1s", "deploy.yaml:3:18", "traffic.column names none"),
        ("sent\n1\n0\n", "column: sent", "t.csv:3", "earlier than the one before"),
        ("sent\nnoon\n", "column: sent", "t.csv:2", "'noon' is not a send time"),
        ('sent\n"1\n', "column: sent", "deploy.yaml:3:18", "cannot be read as CSV"),
    ],
)
def test_a_wrong_trace_points_at_its_line(tmp_path, csv, rest, where, words):
    (tmp_path / "m.onnx").touch()
    (tmp_path / "t.csv").write_text(csv)
    error = complaint(f"model: {{source: onnx:m.onnx}}\n{SLO}\ntraffic: {{trace: t.csv, {rest}}}\n", tmp_path)
    assert (error.where, error.code) == (where, "trace-invalid")
    assert words in error.message


def test_the_schema_is_valid_and_accepts_what_the_reader_accepts():
    made = schema.document()
    jsonschema.Draft202012Validator.check_schema(made)
    validator = jsonschema.Draft202012Validator(made)
    for text in (THREE, EXAMPLE.replace("  local:\n", "  local: {}\n")):
        document = json.loads(json.dumps(YAML(typ="safe", pure=True).load(text)))
        assert list(validator.iter_errors(document)) == []
    wrong = json.loads(json.dumps(YAML(typ="safe", pure=True).load(EXAMPLE.replace("40 USD/day", "40").replace("  local:\n", "  local: {}\n"))))
    assert [e.json_path for e in validator.iter_errors(wrong)] == ["$.environments.prod.limits.cost"]
    for path, key in (((), "latncy"), (("slo",), "latncy"), (("environments", "prod", "ports"), "https")):
        document = json.loads(json.dumps(YAML(typ="safe", pure=True).load(EXAMPLE.replace("  local:\n", "  local: {}\n"))))
        node = document
        for step in path:
            node = node[step]
        node[key] = 1
        assert list(validator.iter_errors(document))


fragments = st.sampled_from(
    [
        "model",
        "slo",
        "traffic",
        "latency",
        "p99",
        ": ",
        "\n",
        "  ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "- ",
        "&a",
        "*a",
        "!!",
        "'",
        '"',
        "|",
        ">",
        "? ",
        "<<",
        "100ms",
        "40/s",
        "\t",
        "#",
        "%",
        "---",
        "...",
    ]
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(fragments, max_size=30).map("".join) | st.text(max_size=80))
def test_no_text_ends_in_anything_but_a_project_or_a_complaint(text):
    try:
        project(text)
    except ProjectError as error:
        assert error.hint
        assert error.code.startswith(("config-", "trace-"))


@given(st.binary(max_size=80))
def test_no_bytes_end_in_anything_but_a_complaint(data):
    with pytest.raises(ProjectError):
        project_from(parse(data, "deploy.yaml"), HERE)


leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["40/s", "100ms", "1%", "p99", "local", "2..3", "x y", ""])
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["rate", "latency", "p99", "local", "limits", "replicas", "try", "16", "at", "on"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["version", "name", "model", "slo", "traffic", "compress", "environments"]), trees))
def test_no_tree_ends_in_anything_but_a_project_or_a_complaint(tree):
    try:
        project(
            json.dumps({"model": {"source": f"onnx:{Path(__file__).name}"}, "slo": {"latency": {"p99": "1s"}}, "traffic": {"rate": "1/s"}, **tree})
        )
    except ProjectError as error:
        assert error.where


positive = st.integers(1, 10**6)


@given(rate=positive, p99=positive, low=st.integers(1, 50), more=st.integers(0, 50))
def test_numbers_arrive_exactly(rate, p99, low, more):
    limits = f"environments: {{local: {{limits: {{replicas: {low}..{low + more}}}}}}}"
    made = project(f"{MODEL}\nslo: {{latency: {{p99: {p99}us}}}}\ntraffic: {{rate: {rate}/s}}\n{limits}\n")
    assert made.slo.latency.max == pytest.approx(p99 / 1e6, rel=1e-15)
    assert made.traffic.steps[0].rate_rps == rate
    assert made.environments[0].limits.max_replicas == low + more
    assert units.seconds(str(show.values(made)["slo.latency.p99"])) == made.slo.latency.max
