"""The screen of `advise`: its document enters, text of about 80 columns leaves.

In the order in which it is asked: what happened, what else was possible, what to do, which traps are in the manifests.
"""

from __future__ import annotations

import textwrap
from typing import Any

from deployctl.cli._console import columns
from deployctl.core import words

WIDTH = 84
_SHORT = {"HorizontalPodAutoscaler": "HPA", "ScaledObject": "ScaledObject"}


def table(document: dict[str, Any], written: str | None) -> str:
    """The whole screen.

    Args:
        document: of `flows.advise.advise`.
        written: file that the objects to apply were written to; None if they were not.
    """
    parts = [_happened(document), _possible(document), _advice(document, written), *_traps(document["findings"])]
    return "\n\n".join("\n".join(lines) for lines in parts)


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _happened(document: dict[str, Any]) -> list[str]:
    past, window_s, asked_s = document["measured"], document["window_s"], document["asked_s"]
    of = f", of {words.duration(asked_s)} asked for" if window_s < 0.95 * asked_s else ""
    known = f"; metrics are known for {document['known_ratio'] * 100:.0f} % of it" if document["known_ratio"] < 0.995 else ""
    return [
        f"What happened to {document['model']} in {words.duration(window_s)}{of}{known}",
        *_wrapped(
            f"{past.windows_missed_ratio * 100:.1f} % of five-minute windows missed: mean response above"
            f" {words.seconds(document['replay']['slo_s'])}, or over 1 % failed"
        ),
        *_wrapped(f"the slowest window took {words.seconds(past.largest_mean_response_s)} on average"),
        *_wrapped(f"{past.replica_hours:,.1f} replica-hours for {past.requests:,.0f} requests, at most {past.peak_rps:,.1f}/s"),
    ]


def _possible(document: dict[str, Any]) -> list[str]:
    replay, now = document["replay"], document["present"]
    plant = replay["plant"]
    rows: list[tuple[str, ...]] = [
        (_label(p["policy"]), "kept" if p["kept"] else "broken", f"{p['replica_hours']:,.1f}", f"{p['regret']:.2f}x", f"{p['miss_ratio'] * 100:.2f}%",
         f"{p['windows_ok_ratio'] * 100:.1f}%", f"{p['longest_breach_s']:.0f} s")
        for p in replay["policies"]
    ]  # fmt: skip
    rows.append(("minimum possible", "", f"{replay['bound']['clairvoyant_hours']:,.1f}", "1.00x", "1.00%", "", ""))
    lines = [
        "The same requests, replayed",
        *("  " + line for line in columns(rows, ("", "SLO", "replica-hours", "x minimum", "missed", "windows ok", "longest breach")).splitlines()),
    ]
    how = "estimated from busy time" if document["capacity_estimated"] else "as stated"
    lines += _wrapped(f"a replica serves {plant['capacity_rps']:,.1f}/s ({how}) and takes {plant['start_up_s']:g} s to start (--start-up)")
    for text in now["assumed"] if now else ():
        lines += _wrapped(f"assumed: {text}")
    if now and now["forecast_error_ratio"] is not None:
        lines += _wrapped(f"the replay of {_label(now['name'])} is {now['forecast_error_ratio'] * 100:.0f} % off the replicas that really ran")
    return lines


def _label(name: str) -> str:
    kind, _, rest = name.partition("/")
    return f"{_SHORT.get(kind, kind)}/{rest}" if rest else name


def _advice(document: dict[str, Any], written: str | None) -> list[str]:
    advice = document["advice"]
    head = {"apply": "Apply the objects below", "keep": "Keep what is there", "neither": "No autoscaler alone keeps this SLO"}[advice.do]
    why = advice.why
    if document["present"]:
        why = why.replace(document["present"]["name"], _label(document["present"]["name"]))
    lines = [head, *_wrapped(why)]
    if advice.caution:
        lines += _wrapped(f"But {advice.caution}")
    lines += ["", "Objects of the slo policy" + ("" if written else " (--yaml FILE writes them; -o json has them under objects)")]
    lines += [f"  {item['kind']} {item['metadata']['namespace']}/{item['metadata']['name']}" for item in document["objects"]]
    if written:
        lines += [f"  kubectl diff -f {written}; kubectl apply -f {written}"]
    return lines + _before(document)


def _before(document: dict[str, Any]) -> list[str]:
    """What has to be so before they are applied."""
    present, hpa = document["present"], document["objects"][1]
    kind, _, name = (present["name"] if present else "").partition("/")
    lines = _wrapped("needs a metrics adapter that serves deployctl:wanted_replicas as deployctl_wanted_replicas, and Kubernetes 1.33 (tolerance)")
    if kind == "ScaledObject":
        lines += _wrapped(f"first: kubectl delete scaledobject {name} -n {hpa['metadata']['namespace']}   (two autoscalers undo each other)")
    elif kind:
        lines += _wrapped(f"takes the place of the HPA {hpa['metadata']['namespace']}/{name}: same name")
    fewest = present["min_replicas"] if present else 0
    if fewest > hpa["spec"]["minReplicas"]:
        lines += _wrapped(f"minReplicas is {hpa['spec']['minReplicas']}, and was {fewest}: set it back if that is for more than load")
    return lines


def _traps(findings: list[Any]) -> list[list[str]]:
    return [
        ["Traps in the manifests"] * (i == 0)
        + _wrapped(f"{finding.severity}: {finding.message} ({finding.name})")
        + _wrapped(finding.remedy, "    ")
        + [f"      | {line}" for line in finding.fix.splitlines()]
        for i, finding in enumerate(findings)
    ]
