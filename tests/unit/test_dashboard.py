"""The dashboard as Grafana reads it: the shape of its schema, and the file that is shipped is the one that the code makes."""

import json
import re
from pathlib import Path

from deployctl.core.dashboard import PANELS, dashboard

FILE = Path(__file__).resolve().parents[2] / "infra" / "dashboards" / "triton-service.json"
GRAFANA_UNITS = {"s", "percentunit", "short", "reqps"}


def test_golden_file_for_people_who_import_it(pytestconfig):
    text = json.dumps(dashboard(), indent=1, sort_keys=True) + "\n"
    if pytestconfig.getoption("update_snapshots", False):  # `make golden`
        FILE.write_text(text)
    assert text == FILE.read_text()


def test_panels_neither_overlap_nor_leave_the_grid():
    taken = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells


def test_panels_are_as_grafana_wants_them():
    panels = dashboard("echo")["panels"]
    assert len({p["id"] for p in panels}) == len(panels) == len(PANELS)
    for panel in panels:
        assert panel["type"] in ("timeseries", "stat")
        assert panel["fieldConfig"]["defaults"]["unit"] in GRAFANA_UNITS
        assert panel["description"]
        refs = [t["refId"] for t in panel["targets"]]
        assert refs == sorted(set(refs)) and refs
        assert all(t["expr"] and t["datasource"]["uid"] == "${datasource}" for t in panel["targets"])


def test_every_variable_is_declared_and_used():
    made = dashboard()
    declared = {v["name"] for v in made["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(made))) - {"__rate_interval"}
    assert used == declared


def test_the_service_of_a_rendered_dashboard_is_chosen():
    (service,) = [v for v in dashboard("echo")["templating"]["list"] if v["name"] == "service"]
    assert service["current"]["value"] == "echo-pods"
    assert dashboard("echo")["uid"] != dashboard("search")["uid"]
