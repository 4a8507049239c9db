"""A pull request's change to one environment, summary first: what enters are two plans and two sets of rendered files, what
leaves are rows, object diffs and Markdown. Deterministic; refuses to know git and where files lie.

Texts of a pull request come from somebody who may mean harm: every value is shown as code, and no value can end its cell,
its fence or the fold that it stands in.
"""

from __future__ import annotations

import difflib
import html
from dataclasses import dataclass

from deployctl.core import words
from deployctl.core.cost import of_plan
from deployctl.core.diff import changes
from deployctl.core.finding import Finding
from deployctl.core.gitops import predicted
from deployctl.core.plan import Plan
from deployctl.core.plan_view import objective_text, replicas_text, settings_text
from deployctl.core.platform import Platform

# GitHub takes comments of 65,536 characters; what is over this is left out from the end, so that the summary stays.
_LONGEST = 60_000
_OBJECT_LINES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fact that users of the service would notice; `-` stands for nothing."""

    fact: str
    before: str
    after: str

    @property
    def differs(self) -> bool:
        """Whether it changes."""
        return self.before != self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectChange:
    """One rendered file: `sign` + added, - removed, ~ changed; its unified diff without headers."""

    name: str
    sign: str
    diff: tuple[str, ...]

    @property
    def counts(self) -> tuple[int, int]:
        """(lines added, lines removed)."""
        return sum(line.startswith("+") for line in self.diff), sum(line.startswith("-") for line in self.diff)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """The whole change.

    Attributes:
        service, env: who.
        base: what it is compared with, as the person named it.
        rows: every fact, changed or not.
        objects: rendered files that change, by name.
        proven: whether a proof for exactly this stands behind the settings.
        unresolved: what is not pinned by digest yet.
        findings: known traps in the rendered objects.
        notices: what the planner wants people to know.
    """

    service: str
    env: str
    base: str
    rows: tuple[Row, ...]
    objects: tuple[ObjectChange, ...]
    proven: bool
    unresolved: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether merging it would change anything."""
        return bool(self.objects) or any(row.differs for row in self.rows)


def rows(before: Plan | None, after: Plan, platform: Platform | None = None) -> tuple[Row, ...]:
    """What people should look at first, in a fixed order; other changes of the plan follow. `platform` knows the prices of today."""
    facts = [dict(_facts(p, platform)) if p else {} for p in (before, after)]
    names = list(dict.fromkeys([*facts[1], *facts[0]]))
    found = [Row(fact=n, before=facts[0].get(n, "-"), after=facts[1].get(n, "-")) for n in names]
    shown = ("bundle", "variant", "settings", "replicas", "scaling", "slo", "demand", "forecast", "evidence", "device", "triton_version")
    if before is not None:
        rest = [c for c in changes(before, after) if c.path.split(".")[0] not in shown]
        found += [Row(fact=c.path, before=c.before or "-", after=c.after or "-") for c in rest]
    return tuple(found)


def _facts(plan: Plan, platform: Platform | None) -> list[tuple[str, str]]:
    serves = f"{plan.variant or plan.entry} ({words.short(plan.bundle)})"
    demand = plan.demand
    sizes = ", ".join(f"{s.size}: {words.percent(s.share_ratio)}" for s in demand.mix)
    return [
        ("model", serves),
        *((f"settings of {name}", settings_text(s)) for name, s in plan.settings.items()),
        ("replicas", replicas_text(plan)),
        ("cost", str(of_plan(plan, platform) or "nothing: it runs on this machine")),
        ("SLO", f"{objective_text(plan.slo.latency)}; errors at most {words.percent(plan.slo.error_max_ratio)}"),
        ("traffic", f"{words.rate(demand.peak_rps)} {demand.arrivals}; sizes {sizes or 'as the sample'}"),
        ("runs on", f"{plan.device}, Triton {plan.triton_version}"),
        ("predicted p99", predicted(plan)),
        ("proof", words.short(plan.evidence) if plan.evidence else "none"),
    ]


def object_changes(before: dict[str, str], after: dict[str, str]) -> tuple[ObjectChange, ...]:
    """Differences of rendered files, by file name."""
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        sign = "+" if old is None else "-" if new is None else "~"
        lines = list(difflib.unified_diff((old or "").splitlines(), (new or "").splitlines(), lineterm="", n=3))[2:]
        found.append(ObjectChange(name=name, sign=sign, diff=tuple(lines)))
    return tuple(found)


def verdict(review: Review) -> str:
    """The one sentence that stands on top."""
    if review.unresolved:
        return f"not ready: {', '.join(review.unresolved)} not known yet"
    traps = [f for f in review.findings if f.severity == "fail"]
    if traps:
        return f"not ready: {traps[0].message}"
    if not review.differs:
        return "nothing changes"
    return "proven on this device and traffic" if review.proven else "NOT proven on this device and traffic"


def table_lines(review: Review) -> list[str]:
    """The summary for a terminal: changed facts, then the files."""
    lines = [f"{review.service} in {review.env} against {review.base}: {verdict(review)}"]
    lines += words.rows([(r.fact, f"{r.before} -> {r.after}") for r in review.rows if r.differs])
    for item in review.objects:
        added, removed = item.counts
        lines.append(f"  {item.sign} {item.name}  +{added} -{removed}")
    return [*lines, *(f"note: {n}" for n in review.notices)]


def markdown(review: Review) -> str:
    """One comment for a pull request: verdict and table first, then each object folded."""
    head = [f"### {_code(review.service)} in {_code(review.env)}: {_text(verdict(review))}", ""]
    if review.differs:
        head += [f"Against {_code(review.base)}:", "", "| | before | after |", "|---|---|---|"]
        head += [f"| {_text(r.fact)} | {_code(r.before)} | {_code(r.after)} |" for r in _shown(review)]
        head.append("")
    for finding in review.findings:
        head.append(f"- **{finding.severity}** {_code(finding.message)}: {_text(finding.remedy)}")
    head += [f"- {_text(n)}" for n in review.notices]
    text = "\n".join(head).rstrip() + "\n"
    for number, item in enumerate(review.objects):
        part = _folded(item)
        if len(text) + len(part) > _LONGEST:
            return f"{text}\n{words.count(len(review.objects) - number, 'more object')} left out here: `git diff` shows all.\n"
        text += part
    return text


def _shown(review: Review) -> list[Row]:
    """Changed facts, and those that a reader looks for in any case."""
    return [r for r in review.rows if r.differs or r.fact in ("predicted p99", "proof", "cost")]


def _folded(item: ObjectChange) -> str:
    added, removed = item.counts
    lines = item.diff[:_OBJECT_LINES]
    cut = len(item.diff) - len(lines)
    fence = "`" * max(3, 1 + max((len(run) for line in lines for run in _ticks(line)), default=0))
    more = [f"… {cut} lines more"] if cut else []
    body = "\n".join([f"{fence}diff", *lines, *more, fence])
    return f"\n<details><summary>{item.sign} <code>{html.escape(item.name)}</code> +{added} -{removed}</summary>\n\n{body}\n\n</details>\n"


def _ticks(line: str) -> list[str]:
    return [run for run in "".join(c if c == "`" else " " for c in line).split() if run]


def _text(text: str) -> str:
    """The text as prose: one line, no markup, no link, and nobody is called by their name."""
    return "".join(f"&#{ord(c)};" if c in "`[]|*_@<>&#~!\\" else c for c in " ".join(text.split())) or "-"


def _code(text: str) -> str:
    """The text as inline code that cannot end its table cell."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "¦")
    return f"`{plain}`" if plain else "-"
