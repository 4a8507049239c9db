"""A measured grid from a CSV: repeats become medians, empty rows are what may be measured next, and every fault has its line."""

import pytest

from deployctl.config import grids
from deployctl.errors import ProjectError
from deployctl.flows._grid import advise_on_grid, document

HEAD = "instance_count,client_concurrency,throughput_ips,p99_ms\n"


def written(tmp_path, text):
    file = tmp_path / "grid.csv"
    file.write_text(text)
    return file


def test_repeats_are_medians_and_units_are_ours(tmp_path):
    table = grids.read(written(tmp_path, HEAD + "1,1,100,10\n1,1,140,30\n1,1,120,20\n1,2,,\n"), "grid.csv")
    assert table.grid.points == ((1.0, 1.0), (1.0, 2.0)) and table.grid.roles == ("instances", "clients")
    (only,) = table.measured
    assert (only.index, only.value, only.limited) == (0, 120.0, pytest.approx(0.020))


def test_a_failed_measurement_is_data_and_a_lucky_repeat_is_not_one(tmp_path):
    table = grids.read(written(tmp_path, HEAD + "1,1,failed,\n1,1,failed,\n1,1,100,10\n2,1,failed,\n2,1,90,10\n"), "grid.csv")
    assert [(m.index, m.value) for m in table.measured] == [(0, None), (1, 90.0)]


def test_the_best_keeps_the_limit_and_the_next_is_not_measured_yet(tmp_path):
    rows = [f"{k},{n},{100 * min(k, n)},{5 + 10 * max(n - k, 0)}" if (k + n) % 2 else f"{k},{n},," for k in (1, 2, 4) for n in (1, 2, 3, 4, 6, 8)]
    advice = advise_on_grid(written(tmp_path, HEAD + "\n".join(rows)), limit_s=0.03)
    said = document(advice, 0.03)
    assert said["best"]["throughput_rps"] == 300 and said["best"]["instances"] == 4 and said["best"]["p99_s"] <= 0.03
    assert advice.ask not in {m.index for m in advice.table.measured}
    assert said["measured"] < said["points"] == 18


def test_a_whole_grid_has_no_next_and_a_limit_that_nothing_keeps_no_best(tmp_path):
    file = written(tmp_path, HEAD + "1,1,100,10\n1,2,150,20\n")
    assert document(advise_on_grid(file, limit_s=0.015), 0.015)["best"]["clients"] == 1
    said = document(advise_on_grid(file, limit_s=0.001), 0.001)
    assert said["best"] is None and said["next"] is None and said["reason"] == "everything is measured"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nothing"),
        ("a,b\n1,2\n", "it has a, b"),
        (HEAD, "it needs a column"),
        (HEAD + "1,1,100,10\n1,2,fast,10\n", "grid.csv:3"),
        (HEAD + "1,1,100,\n", "grid.csv:2"),
        (HEAD + "1,1,100\n", "3 columns, not 4"),
        (HEAD + "x,1,100,10\n", "instance_count is 'x'"),
        (HEAD + "1,1,inf,10\n", "'inf'"),
        (HEAD + "1,1,-3,10\n", "'-3'"),
    ],
)
def test_what_is_no_grid_is_told_with_its_line(tmp_path, text, told):
    with pytest.raises(ProjectError) as error:
        grids.read(written(tmp_path, text), "grid.csv")
    assert error.value.code == "grid-invalid" and error.value.hint
    assert told in f"{error.value.where} {error.value.message}"
