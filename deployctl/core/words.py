"""Numbers as people read them: what enters are base units, what leaves is short text with its unit. Refuses to know screens."""

from __future__ import annotations

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def seconds(value_s: float | None) -> str:
    """A latency: 0.41 ms, 41.2 ms, 1.30 s, 300 s; `unknown` for None."""
    if value_s is None:
        return "unknown"
    if value_s >= 1.0 or value_s == 0.0:
        return f"{value_s:.0f} s" if value_s >= 100 or value_s == 0.0 else f"{value_s:.3g} s"
    value_ms = value_s * 1e3
    return f"{value_ms:.2f} ms" if value_ms < 1 else f"{value_ms:.3g} ms" if value_ms < 100 else f"{value_ms:.0f} ms"


def command(verb: str, env: str) -> str:
    """What to type next for an environment: `deployctl up`, or `deployctl up --env prod` where it is not the default one."""
    return f"deployctl {verb}" if env == "local" else f"deployctl {verb} --env {env}"


def duration(value_s: float) -> str:
    """A length of time: 45s, 12m, 3h, 2d."""
    whole_s = max(0, round(value_s))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole_s >= size:
            number = whole_s / size
            return f"{round(number, 1):g}{unit}" if number < 10 else f"{number:.0f}{unit}"
    return f"{whole_s}s"


def rate(value_rps: float | None) -> str:
    """Requests per second: 0.25/s, 40/s; `unknown` for None."""
    if value_rps is None:
        return "unknown"
    return f"{value_rps:.3g}/s" if value_rps < 100 else f"{value_rps:,.0f}/s"


def percent(ratio: float) -> str:
    """A ratio as per cent: 0.1 %, 12 %."""
    return f"{ratio * 100:.2g} %" if abs(ratio) < 0.1 else f"{ratio * 100:.0f} %"


def count(number: int, noun: str) -> str:
    """`1 replica`, `2 replicas`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def bounds(low: int, high: int) -> str:
    """`3` or `1..4`."""
    return str(low) if low == high else f"{low}..{high}"


def short(digest: str | None) -> str:
    """The first twelve hex digits of a digest: what people type and compare."""
    return digest.removeprefix("sha256:")[:12] if digest else "unresolved"


def sparkline(values: Sequence[float | None], *, width: int = 40) -> str:
    """The last `width` values as bars from 0 to the largest; a gap where there is none."""
    shown = list(values)[-width:]
    top = max((v for v in shown if v is not None), default=0.0)
    return "".join(" " if v is None else _BARS[min(7, int(v / top * 7.999)) if top > 0 else 0] for v in shown)


def rows(pairs: Sequence[tuple[str, str]], *, indent: str = "  ") -> list[str]:
    """Aligned `label  text` lines; a text of several lines keeps its column."""
    width = max((len(label) for label, _ in pairs), default=0)
    lines = []
    for label, text in pairs:
        first, *rest = text.splitlines() or [""]
        lines.append(f"{indent}{label.ljust(width)}  {first}".rstrip())
        lines += [f"{indent}{' ' * width}  {line}".rstrip() for line in rest]
    return lines
