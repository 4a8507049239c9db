"""Every service of a cluster on one screen, from listed objects."""

import pytest

from deployctl.cli.status import _fleet_table
from deployctl.core import fleet_view, kube_inventory, kube_names
from deployctl.core.kube_inventory import Inventory
from deployctl.core.release import Release
from deployctl.testing import kube


def deployment(owner, *, ready, wanted=2):
    meta = {"name": owner.split("/")[0], "namespace": "serving", "annotations": {kube_names.OWNER: owner}, "generation": 1}
    status = {"replicas": wanted, "updatedReplicas": wanted, "readyReplicas": ready, "observedGeneration": 1}
    return {"metadata": meta, "spec": {"replicas": wanted}, "status": status}


def book(owner):
    plan = kube.plan(kube.bundle())
    wanted = Release(revision=1, created_at_s=0.0, action="up", plan=plan)
    item = kube_inventory.manifest(Inventory(owner=owner, writer="apply", wanted=wanted, refs=()), plan, "serving")
    item["metadata"]["annotations"][kube_names.OWNER] = owner
    return item


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 1}'])
def test_a_damaged_record_shows_and_does_not_hide_the_others(text):
    sound, harmed = book("echo/prod"), book("other/prod")
    harmed["data"]["inventory.json"] = text
    rows = fleet_view.rows([deployment("echo/prod", ready=2), deployment("other/prod", ready=2)], [], [sound, harmed])
    assert [(r.service, r.health, r.revision) for r in rows] == [("other", "degraded", None), ("echo", "healthy", 1)]
    assert "ConfigMap serving/" in rows[0].message and rows[1].message == ""
    assert fleet_view.exit_code(rows) == 4
    alone = fleet_view.rows([], [], [harmed])
    assert [(r.health, "its Deployment is missing" in r.message) for r in alone] == [("failed", True)]


def test_the_screen_begins_with_how_many_stand_how_and_the_worst_comes_first():
    rows = fleet_view.rows([deployment("echo/prod", ready=2), deployment("late/prod", ready=1), deployment("third/prod", ready=2)], [], [])
    lines = _fleet_table(rows, None).splitlines()
    assert lines[0] == "3 services: 1 degraded, 2 healthy"
    assert lines[1].split()[:4] == ["NAMESPACE", "SERVICE", "ENV", "HEALTH"]
    assert [line.split()[1] for line in lines[2:]] == ["late", "echo", "third"] and lines[2].endswith("1 not ready")
