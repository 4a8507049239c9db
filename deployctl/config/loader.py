"""deploy.yaml to a Project: what enters is a path, what leaves is the completed project with the origin of every value.

Checks what one field cannot know alone: that files exist, that keys fit together. Refuses to import or run anything of
the user's.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployctl.config import complaints, show, traces
from deployctl.config.fields import did_you_mean
from deployctl.config.model import RawDistill, RawEnvironment, RawProject, RawSlo, RawTraffic
from deployctl.config.tree import MAX_BYTES, Document, Map, Mark, Node, Scalar, parse
from deployctl.core.demand import RateStep, SizeShare
from deployctl.core.plan import Ports
from deployctl.core.platform import Platform, Telemetry
from deployctl.core.project import CompressSpec, DistillSpec, Environment, Limits, ModelSource, Project, ScalingSpec, Traffic
from deployctl.core.slo import Objective, Slo, implied_error_ratio
from deployctl.errors import ProjectError

FILE_NAME = "deploy.yaml"


def load(path: Path) -> Project:
    """Read, check and complete one deploy.yaml; see `deployctl.config.load`."""
    file = path / FILE_NAME if path.is_dir() else path
    document = parse(read_bytes(file), file.name)
    return project_from(document, file.parent.resolve())


def project_from(document: Document, folder: Path) -> Project:
    """The project that a parsed document describes; relative paths are looked up in `folder`.

    Raises:
        ProjectError: a key, value or file does not fit.
    """
    try:
        raw = RawProject.model_validate(plain(document.root))
    except ValidationError as error:
        raise complaints.explain(document, RawProject, error) from error
    complaints.refuse_nulls(document, RawProject)
    builder = _Builder(document, folder)
    project = Project(
        name=raw.name or default_name(folder),
        model=builder.model(raw),
        slo=builder.slo(raw.slo),
        traffic=builder.traffic(raw.traffic),
        compress=builder.compress(raw),
        environments=builder.environments(raw),
        origins=dict(origins(document)),
    )
    keys = show.values(project)
    return replace(project, origins={key: project.origins.get(key, "default") for key in keys})


def default_name(folder: Path) -> str:
    """The folder's name as a service name (what DNS and Kubernetes accept), `service` where nothing of it remains."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    name = re.sub(r"^[^a-z]+", "", name)[:40].strip("-")
    return name or "service"


def plain(node: Node) -> Any:
    """A node as dicts, lists and texts; empty values are None."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Map):
        return {key: plain(value) for key, (_, value) in node.entries.items()}
    return [plain(item) for item in node.items]


def origins(document: Document) -> Iterator[tuple[str, str]]:
    """`slo.latency.p99` -> `deploy.yaml:4:17` for every value that was written; all else is a default."""
    pending: list[tuple[str, Node]] = [("", document.root)]
    while pending:
        prefix, node = pending.pop()
        if isinstance(node, Map) and node.entries:
            pending.extend((f"{prefix}.{key}" if prefix else key, value) for key, (_, value) in node.entries.items())
        elif prefix:
            yield prefix, document.address(node.mark)


def read_bytes(file: Path) -> bytes:
    """The file's bytes, at most one more than are accepted.

    Raises:
        ProjectError: there is no such file (`config-not-found`), or it may not be read (`config-unreadable`).
    """
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ProjectError(
            f"there is no {FILE_NAME} in {file.parent}", code="config-not-found", hint="deployctl init   (writes one; or name the folder with -C DIR)"
        ) from error
    except OSError as error:
        raise ProjectError(
            f"{file.name} cannot be read: {error.strerror}",
            code="config-unreadable",
            where=str(file),
            hint="mend the file's rights and repeat the command",
        ) from error


class _Builder:
    """Raw sections to core types, with the document at hand for errors that point at a line."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.document = document
        self.folder = folder

    def fail(self, path: tuple[str | int, ...], message: str, *, hint: str, code: str = "config-invalid") -> ProjectError:
        return self.document.error(complaints.value_mark(self.document, path), message, hint=hint, code=code)

    def model(self, raw: RawProject) -> ModelSource:
        kind, value = raw.model.source
        where: tuple[str | int, ...] = ("model", "source")
        if kind == "python":
            self._module(value.partition(":")[0])
        elif kind == "triton" or (kind == "opaque" and (self.folder / value).is_dir()):
            self._exists(where, value, folder=True)
        else:
            self._exists(where, value)
        for name in ("sample", "tokenizer"):
            named = getattr(raw.model, name)
            if named is not None:
                self._exists(("model", name), named)
        for name in ("tokenizer", "pooling"):
            if getattr(raw.model, name) is not None and kind != "onnx":
                message = f"{name} is for an onnx: source; a {kind}: source brings its own"
                raise self.fail(("model", name), message, hint=f"remove model.{name}")
        return ModelSource(
            kind=kind,  # type: ignore[arg-type]
            value=value,
            sample=raw.model.sample,
            tokenizer=raw.model.tokenizer,
            pooling=raw.model.pooling,
            environment=raw.model.environment,
        )

    def _exists(self, path: tuple[str | int, ...], name: str, *, folder: bool = False) -> Path:
        file = self.folder / name
        try:
            found = file.is_dir() if folder else file.is_file()
            readable = found and os.access(file, os.R_OK | os.X_OK if folder else os.R_OK)
        except (OSError, ValueError):
            found = readable = False
        if not found:
            what = "folder" if folder else "file"
            hint = f"create it, or correct {'.'.join(map(str, path))}; paths start at the folder of deploy.yaml"
            raise self.fail(path, f"there is no {what} {name}", hint=hint, code="config-file-missing")
        if not readable:
            raise self.fail(path, f"{name} may not be read by this user", hint=f"chmod u+r {name}", code="config-file-missing")
        return file

    def _module(self, module: str) -> None:
        """A module beside deploy.yaml or on this interpreter's path, looked up as files; nothing is imported."""
        inside = Path(*module.split("."))
        top = module.split(".")[0]
        here = [self.folder / inside.with_suffix(".py"), self.folder / inside / "__init__.py"]
        if any(f.is_file() for f in here):
            return
        installed = (p / f"{top}.py" for p in map(Path, sys.path))
        packages = (p / top / "__init__.py" for p in map(Path, sys.path))
        if (self.folder / f"{top}.py").is_file() or not any(f.is_file() for f in (*installed, *packages)):
            hint = f"create {inside}.py beside deploy.yaml, or correct model.source"
            raise self.fail(("model", "source"), f"there is no module {module}: {inside}.py is missing", hint=hint, code="config-file-missing")

    def slo(self, raw: RawSlo) -> Slo:
        rows: list[Objective] = []
        for metric in ("latency", "ttft", "itl"):
            limits: dict[float, float] = getattr(raw, metric)
            if not limits and metric == "latency":
                raise self.fail(
                    ("slo", "latency"),
                    "at least one latency objective is needed",
                    hint="write slo: {latency: {p99: 100ms}}",
                    code="config-missing-key",
                )
            self._distinct(metric, len(limits))
            previous = None
            for percentile in sorted(limits):
                if previous is not None and limits[percentile] < limits[previous]:
                    message = f"p{percentile:g} may not be stricter than p{previous:g}: it is never smaller"
                    raise self.fail(("slo", metric), message, hint="swap the two limits, or drop one")
                previous = percentile
                rows.append(Objective(metric=metric, max=limits[percentile], percentile=percentile, window_s=raw.window, at=raw.at))
        errors = implied_error_ratio(list(raw.latency)) if raw.errors is None else raw.errors
        rows.append(Objective(metric="errors", max=errors, window_s=raw.window, at=raw.at))
        return Slo(objectives=tuple(rows))

    def _distinct(self, metric: str, parsed: int) -> None:
        written = plain(self.document.root)["slo"].get(metric) or {}
        if len(written) != parsed:
            raise self.fail(("slo", metric), "the same percentile stands twice in different spelling", hint="remove one of them")

    def traffic(self, raw: RawTraffic) -> Traffic:
        given = [name for name in ("rate", "steps", "trace") if getattr(raw, name) is not None]
        if len(given) != 1:
            problem = f"{' and '.join(given)} exclude each other" if given else "no traffic is stated"
            where: tuple[str | int, ...] = ("traffic", given[1]) if given else ("traffic",)
            raise self.fail(
                where,
                problem,
                hint="write one of rate: 40/s, steps: [...] or trace: FILE.csv",
                code="config-invalid" if given else "config-missing-key",
            )
        for name in ("column", "per"):
            if getattr(raw, name) is not None and given != ["trace"]:
                raise self.fail(("traffic", name), f"{name} belongs to a trace", hint=f"remove traffic.{name}, or write trace: FILE.csv")
        steps, times = self._curve(raw)
        exact = times is not None
        if exact and raw.arrivals is not None:
            raise self.fail(
                ("traffic", "arrivals"), "a trace of send times has no arrival law", hint="remove traffic.arrivals, or add per: for a trace of counts"
            )
        arrivals = "trace" if exact else raw.arrivals or "poisson"
        if raw.cv is not None and arrivals not in ("gamma", "weibull"):
            raise self.fail(
                ("traffic", "cv"), f"cv belongs to gamma or weibull, not to {arrivals}", hint="remove traffic.cv, or write arrivals: gamma"
            )
        mix = tuple(SizeShare(size=size, share_ratio=share) for size, share in sorted(raw.mix.items()))
        total = sum(share.share_ratio for share in mix)
        if mix and abs(total - 1) > 0.001:
            raise self.fail(("traffic", "mix"), f"the shares of the mix add to {total * 100:g}%, not 100%", hint="correct the shares")
        if exact or steps:
            self._some_traffic(steps, given[0])
        return Traffic(
            steps=steps,
            arrivals=arrivals,
            cv=1.0 if raw.cv is None else raw.cv,
            mix=mix,
            repeat_ratio=raw.repeat,
            trace_times_s=times,
        )

    def _some_traffic(self, steps: tuple[RateStep, ...], key: str) -> None:
        if max(step.rate_rps for step in steps) <= 0:
            raise self.fail(("traffic", key), "the traffic is zero throughout", hint="state at least one rate above zero")

    def _curve(self, raw: RawTraffic) -> tuple[tuple[RateStep, ...], tuple[float, ...] | None]:
        if raw.rate is not None:
            return (RateStep(start_s=0.0, rate_rps=raw.rate),), None
        if raw.steps is not None:
            if not raw.steps or raw.steps[0].at != 0:
                raise self.fail(("traffic", "steps"), "the first step must start at 0s", hint="write steps: [{at: 0s, rate: 10/s}, ...]")
            for index in range(1, len(raw.steps)):
                if raw.steps[index].at <= raw.steps[index - 1].at:
                    raise self.fail(("traffic", "steps", index, "at"), "each step must start later than the one before", hint="sort the steps by at")
            return tuple(RateStep(start_s=step.at, rate_rps=step.rate) for step in raw.steps), None
        assert raw.trace is not None
        file = self._exists(("traffic", "trace"), raw.trace)
        mark = complaints.value_mark(self.document, ("traffic", "trace"))
        return traces.read(file, raw.trace, column=raw.column, per_s=raw.per, named_at=self.document.address(mark))

    def compress(self, raw: RawProject) -> CompressSpec:
        default = CompressSpec()
        methods = raw.compress.methods
        if methods is not None and not methods:
            raise self.fail(("compress", "try"), "the list of variants is empty", hint="name at least fp32, or remove compress.try")
        if methods is not None and len(set(methods)) != len(methods):
            raise self.fail(("compress", "try"), "a variant is named twice", hint="remove the second one")
        fidelity = raw.compress.fidelity
        return CompressSpec(
            methods=default.methods if methods is None else tuple(methods),
            metric=fidelity.metric or default.metric,
            gate=default.gate if fidelity.min is None else fidelity.min,
            distill=self._distill(raw.compress.distill),
        )

    def _distill(self, raw: RawDistill) -> DistillSpec:
        if raw.keep in (0, 1):
            hint = "write a share between, such as 50%"
            raise self.fail(("compress", "distill", "keep"), "a student keeps some blocks of its teacher, and not all of them", hint=hint)
        return DistillSpec(**_given(raw, keep="keep_ratio", steps="steps", learning_rate="learning_rate", seed="seed", time="limit_s"))

    def environments(self, raw: RawProject) -> tuple[Environment, ...]:
        rows = dict(raw.environments) or {"local": RawEnvironment()}
        return tuple(self._environment(name, section) for name, section in rows.items())

    def _environment(self, name: str, raw: RawEnvironment) -> Environment:
        on = raw.on or "local"
        for key in ("context", "namespace", "pool", "platform", "image", "secrets", "identity", "loadtest_image"):
            if getattr(raw, key) is not None and on == "local":
                message = f"{key} belongs to an environment on kubernetes; {name} is on this machine"
                raise self.fail(("environments", name, key), message, hint=f"add `on: kubernetes` to {name}, or remove {key}")
        platform = self._platform(name, raw) if on == "kubernetes" else None
        self._writer(name, raw, on)
        ports = Ports(**_given(raw.ports, http="http", grpc="grpc"))
        if ports.http == ports.grpc and ports.http != 0:
            raise self.fail(
                ("environments", name, "ports"), f"http and grpc cannot share port {ports.http}", hint="give each a port of its own, or 0"
            )
        low, high = raw.limits.replicas or (None, None)
        if high == 0:
            raise self.fail(
                ("environments", name, "limits", "replicas"),
                "a limit of 0 replicas serves nobody",
                hint="write at least 1; `deployctl down` stops a service",
            )
        cost, currency = raw.limits.cost or (None, "USD")
        scaling = _given(
            raw.scaling,
            policy="policy",
            target="target",
            sync="sync_s",
            tolerance="tolerance_ratio",
            scale_up_window="scale_up_window_s",
            scale_down_window="scale_down_window_s",
        )
        return Environment(
            name=name,
            on=on,
            context=raw.context or (platform.context if platform else None),
            platform=platform,
            namespace=raw.namespace or "default",
            pool=raw.pool,
            image=raw.image,
            secrets=tuple(raw.secrets or ()),
            identity=dict(sorted((raw.identity or {}).items())),
            loadtest_image=raw.loadtest_image,
            limits=Limits(min_replicas=low, max_replicas=high, cost_per_day=cost, currency=currency),
            store=raw.store,
            store_region=raw.store_region,
            store_endpoint=raw.store_endpoint,
            ports=ports,
            scaling=ScalingSpec(**scaling),
            image_prepull=raw.image_prepull,
            **_given(raw, writer="writer", path="path", branch="branch"),
            telemetry=Telemetry(**_given(raw.telemetry, operator="operator", dashboard="dashboard", collector="collector", forward="forward")),
            serves_people=raw.serves_people,
        )

    def _platform(self, name: str, raw: RawEnvironment) -> Platform | None:
        """The platform of an environment, which must have its pool; None where nobody wrote one."""
        from deployctl.config import platform as platforms

        where: tuple[str | int, ...] = ("environments", name, "platform")
        file = self._exists(where, raw.platform) if raw.platform is not None else self.folder / platforms.FILE_NAME
        if raw.platform is None and not file.is_file():
            return None
        found = platforms.load(file)
        pools = [pool.nodes.name for pool in found.pools]
        if raw.pool is not None and raw.pool not in pools:
            message = f"{found.file} has no pool {raw.pool!r}{did_you_mean(raw.pool, pools)}"
            raise self.fail(("environments", name, "pool"), message, hint=f"it has: {', '.join(pools)}", code="pool-unknown")
        return found

    def _writer(self, name: str, raw: RawEnvironment, on: str) -> None:
        """Who writes on a cluster, and what belongs to which writer."""
        where: tuple[str | int, ...] = ("environments", name)
        on_cluster = [key for key in ("writer", "telemetry", "image_prepull") if key in raw.model_fields_set]
        if on == "local" and on_cluster:
            misplaced = on_cluster[0]
            message = f"{misplaced} belongs to an environment on kubernetes; {name} is on this machine"
            raise self.fail((*where, misplaced), message, hint=f"add `on: kubernetes` to {name}, or remove {misplaced}")
        for key in ("path", "branch"):
            if getattr(raw, key) is not None and raw.writer != "gitops":
                raise self.fail((*where, key), f"{key} is for the writer gitops", hint=f"add `writer: gitops` to {name}, or remove {key}")
        if raw.path is not None and (raw.path.startswith("/") or ".." in raw.path.split("/") or raw.path.strip("./") == ""):
            message = f"{raw.path!r} is not a folder inside the project"
            raise self.fail((*where, "path"), message, hint=f"write a folder of its own, such as path: rendered/{name}")
        if raw.telemetry.forward is not None and raw.telemetry.collector is None:
            message = "traces are sent on by the collector, and none is named"
            raise self.fail((*where, "telemetry", "forward"), message, hint="add `collector: NAME@sha256:…` beside it, or remove forward")


def _given(section: Any, **names: str) -> dict[str, Any]:
    """The written fields of a section under their core names; what was left out keeps the core type's default."""
    return {core: getattr(section, raw) for raw, core in names.items() if getattr(section, raw) is not None}


__all__ = ["FILE_NAME", "Mark", "default_name", "load", "origins", "plain", "project_from", "read_bytes"]
