"""The review text of a pull request: summary first, deterministic, and nothing in it can break out of its place."""

import dataclasses
import re

from hypothesis import given
from hypothesis import strategies as st

from deployctl.core import gitops, review
from deployctl.core.finding import Finding
from deployctl.core.lock import Lock
from deployctl.core.review import Review, Row
from deployctl.testing import kube

HOSTILE = st.text(st.sampled_from(list("`|<>\n\r#*_[]()!- ab@/\\\"'")), max_size=40)


def made(**changes) -> Review:
    fields = {"service": "echo", "env": "prod", "base": "main", "rows": (), "objects": (), "proven": True}
    return Review(**{**fields, **changes})


@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_value_leaves_its_table_cell(fact, before, after):
    text = review.markdown(made(rows=(Row(fact=fact, before=before, after=f"{after}x"),), base=before))
    table = [line for line in text.splitlines() if line.startswith("| ") and line != "| | before | after |"]
    if f"{after}x" == before:
        assert table == []
        return
    (line,) = table
    assert re.fullmatch(r"\| [^`|]+ \| (`[^`|]+`|-) \| `[^`|]+` \|", line)


@given(st.lists(HOSTILE, min_size=1, max_size=6))
def test_no_line_of_an_object_ends_its_fence(lines):
    flat = [re.sub(r"[\r\n]", " ", line) for line in lines]
    text = review.markdown(made(objects=review.object_changes({}, {"a.yaml": "\n".join(flat) + "\n"})))
    fence = re.search(r"^(`{3,})diff$", text, re.M)[1]
    assert text.count(f"\n{fence}\n") == 1


def test_a_huge_change_keeps_its_summary_and_says_what_is_left_out():
    files = {f"{n:03}.yaml": "".join(f"line {i} of {n}\n" for i in range(290)) for n in range(60)}
    text = review.markdown(made(objects=review.object_changes({}, files)))
    assert len(text) < 65_536
    assert text.startswith("### `echo` in `prod`")
    assert re.search(r"\d+ more objects left out here", text)


def test_rows_tell_what_users_notice():
    packed = kube.bundle()
    before = kube.plan(packed)
    after = dataclasses.replace(before, replicas=3, triton_version="2.99.0", trace_ratio=0.5)
    changed = {r.fact: (r.before, r.after) for r in review.rows(before, after) if r.differs}
    assert set(changed) == {"replicas", "runs on", "trace_ratio"}
    first = review.rows(None, after)
    assert all(r.before == "-" for r in first)
    assert [r.fact for r in first][:1] == ["model"]


def test_the_verdict_names_the_worst_first():
    trap = Finding(name="t", severity="fail", message="Deployment/x: bad", remedy="mend")
    change = review.object_changes({}, {"a": "b\n"})
    assert review.verdict(made(unresolved=("image",), findings=(trap,))) == "not ready: image not known yet"
    assert review.verdict(made(findings=(trap,))) == "not ready: Deployment/x: bad"
    assert review.verdict(made()) == "nothing changes"
    assert review.verdict(made(objects=change)).startswith("proven")
    assert review.verdict(made(objects=change, proven=False)).startswith("NOT proven")
    assert not made().differs and made(objects=change).differs


def test_promotion_takes_content_and_leaves_what_is_the_targets_own():
    source = Lock(env="dev", bundle="sha256:" + "a" * 64, variant="int8", triton_version="2.51.0")
    target = Lock(env="prod", image="x@sha256:" + "b" * 64, triton_version="2.60.0", held=("sha256:c",))
    lock = gitops.promoted(source, target)
    assert (lock.env, lock.bundle, lock.variant, lock.image, lock.triton_version, lock.held) == (
        "prod", source.bundle, "int8", target.image, "2.60.0", target.held,
    )  # fmt: skip
    imaged = dataclasses.replace(source, image="y@sha256:" + "d" * 64, triton_version="2.61.0")
    assert gitops.promoted(imaged, target).image == imaged.image
    assert gitops.promoted(imaged, target).triton_version == "2.61.0"


def test_a_message_reads_back_from_the_log():
    plan = kube.plan(kube.bundle())
    text = gitops.message(plan, action="up", subject="Release echo to prod", reason="because")
    block = text.rstrip("\n").split("\n\n")[-1]
    record = "\x1f".join(["f" * 40, "1700000000", "Ada", "Release echo to prod", block]) + "\x1e\n"
    (entry,) = gitops.parse_log(record)
    assert entry.trailers[gitops.RELEASE] == plan.digest and entry.trailers[gitops.EVIDENCE] == "none"
    assert gitops.parse_log("") == []
