"""platform.yaml to a Platform: what enters is a path, what leaves is the completed platform with the origin of every value.

Machines are looked up in the catalog; a price of platform.yaml stands above the catalog's. Refuses to know clouds and clusters.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from deployctl.config import catalog, complaints, units
from deployctl.config.fields import did_you_mean
from deployctl.config.loader import default_name, origins, plain
from deployctl.config.platform_model import RawPlatform, RawPool, RawPrice
from deployctl.config.tree import MAX_BYTES, Document, parse
from deployctl.core.platform import (
    GIB,
    Addons,
    InstanceType,
    Network,
    NodePool,
    Platform,
    Pool,
    Price,
    PulumiSettings,
)
from deployctl.errors import ProjectError

FILE_NAME = "platform.yaml"
# What a replica gets of its share of a machine where nobody says: the rest is for the kubelet, daemons and the page cache.
_SHARE_RATIO = 0.75
_AGAIN = "correct the line, then run deployctl platform show   (`deployctl schema --platform` prints every key and its form)"


def load(path: Path) -> Platform:
    """Read, check and complete one platform.yaml.

    Args:
        path: the file, or the folder that holds `platform.yaml`.

    Raises:
        ProjectError: there is none (`platform-not-found`), or something in it has to change; `where` is file:line:column.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        raise ProjectError(
            f"there is no {file.name} in {file.parent}" if absent else f"{file} cannot be read: {error.strerror}",
            code="platform-not-found",
            hint="name the file with --platform FILE; docs/guides/platform.md shows one to begin with",
        ) from error
    return platform_from(parse(data, file.name), file.parent.resolve())


def platform_from(document: Document, folder: Path) -> Platform:
    """The platform that a parsed document describes.

    Raises:
        ProjectError: a key or value does not fit.
    """
    try:
        raw = RawPlatform.model_validate(plain(document.root))
    except ValidationError as error:
        raise complaints.explain(document, RawPlatform, error, again=_AGAIN) from error
    complaints.refuse_nulls(document, RawPlatform)
    builder = _Builder(document, raw)
    builder.check()
    pools = tuple(builder.pools())
    budget, currency = raw.budget or (None, "USD")
    name = raw.name or default_name(folder)
    network = {k: v for k, v in (("cidr", raw.network.cidr), ("zones", tuple(raw.network.zones or ()) or None)) if v is not None}
    return Platform(
        name=name,
        cloud=raw.cloud,
        region=raw.region,
        account=raw.account,
        context=raw.cluster.context or (None if raw.cloud == "existing" else name),
        version=raw.cluster.version,
        network=Network(**network),  # type: ignore[arg-type]
        pools=pools,
        bucket=raw.store,
        readers=tuple(raw.readers or ()),
        addons=Addons(**{f.name: getattr(raw.addons, f.name) for f in dataclasses.fields(Addons)}),
        autoscaler=raw.autoscaler.kind,
        prometheus=raw.autoscaler.prometheus,
        images=dict(raw.images),
        pull_secrets=tuple(raw.pull_secrets or ()),
        budget_per_day=budget,
        currency=currency,
        pulumi=PulumiSettings(backend=raw.pulumi.backend, secrets_provider=raw.pulumi.secrets),
        origins={**dict(_derived(pools)), **dict(origins(document))},
        file=document.name,
    )


class _Builder:
    """Raw sections to core types, with the document at hand for errors that point at a line."""

    def __init__(self, document: Document, raw: RawPlatform) -> None:
        self._document = document
        self._raw = raw

    def fail(self, path: tuple[str | int, ...], message: str, *, hint: str, code: str = "config-invalid") -> ProjectError:
        return self._document.error(complaints.value_mark(self._document, path), message, hint=hint, code=code)

    def check(self) -> None:
        """What one field cannot know alone."""
        raw = self._raw
        made = raw.cloud != "existing"
        if made and raw.region is None:
            raise self.fail(("cloud",), f"{raw.cloud} needs a region", hint="add a line like   region: eu-central-1", code="config-missing-key")
        if raw.cloud in ("gke", "aks") and raw.account is None:
            what = "project" if raw.cloud == "gke" else "subscription"
            raise self.fail(("cloud",), f"{raw.cloud} needs the {what} that pays", hint="add a line like   account: NAME", code="config-missing-key")
        if raw.cloud == "eks" and len(raw.network.zones or []) < 2:
            hint = "write network: {zones: [eu-central-1a, eu-central-1b]}"
            raise self.fail(("network",) if raw.network.zones else ("cloud",), "eks needs at least two zones", hint=hint, code="config-missing-key")
        if not made:
            for key in ("network", "store", "readers", "account"):
                if key in raw.model_fields_set:
                    raise self.fail(
                        (key,), f"{key} belongs to a cluster that is made; `cloud: existing` makes none", hint=f"remove {key}, or name a cloud"
                    )
        if raw.autoscaler.kind == "keda" and raw.autoscaler.prometheus is None:
            hint = "add the Prometheus, like   autoscaler: {kind: keda, prometheus: 'http://prometheus.monitoring:9090'}"
            raise self.fail(("autoscaler",), "KEDA has no Prometheus to ask", hint=hint, code="prometheus-missing")
        if raw.readers and not raw.store:
            raise self.fail(("readers",), "readers read the store, and there is none", hint="add a line like   store: acme-models")
        currencies = {amount[1] for row in raw.pricing.values() for amount in (row.on_demand, row.spot) if amount} | (
            {raw.budget[1]} if raw.budget else set()
        )
        if len(currencies) > 1:
            message = f"prices and budget are in {' and '.join(sorted(currencies))}; they are never converted"
            raise self.fail(("budget",) if raw.budget else ("pricing",), message, hint="write all of them in one currency")

    def pools(self) -> Iterator[Pool]:
        """Every pool, completed."""
        for name, raw in self._raw.pools.items():
            machine = self._machine(name, raw)
            low, high = raw.nodes or (None, None)
            if self._raw.cloud != "existing" and high is None:
                raise self.fail(("pools", name), f"the pool {name} has no upper bound", hint="write nodes: 0..8", code="config-missing-key")
            if raw.on_demand is not None and not raw.spot:
                raise self.fail(("pools", name, "on_demand"), "on_demand belongs to a spot pool", hint="add spot: true, or remove on_demand")
            if raw.on_demand is not None and high is not None and raw.on_demand > high:
                raise self.fail(("pools", name, "on_demand"), f"on_demand is more than the {high} nodes of the pool", hint="lower it, or raise nodes")
            nodes = self._nodes(name, raw, machine, low, high)
            yield Pool(nodes=nodes, instance=machine, price=self._price(machine, raw), on_demand_nodes=raw.on_demand or 0)

    def _machine(self, pool: str, raw: RawPool) -> InstanceType | None:
        known = catalog.instances()
        if raw.instance is None:
            if self._raw.cloud != "existing":
                raise self.fail(("pools", pool), f"the pool {pool} names no instance", hint="write instance: g6.xlarge", code="config-missing-key")
            return None
        if raw.instance in known:
            found = known[raw.instance]
            if self._raw.cloud not in ("existing", found.cloud):
                message = f"{raw.instance} is a machine of {found.cloud}, and the cloud is {self._raw.cloud}"
                raise self.fail(("pools", pool, "instance"), message, hint="name a machine of that cloud")
            return found
        if raw.cpu is None or raw.memory is None or (raw.device is None and raw.gpus != 0):
            near = did_you_mean(raw.instance, [n for n, i in known.items() if self._raw.cloud in ("existing", i.cloud)])
            message = f"the catalog does not know {raw.instance!r}{near}"
            hint = "correct it, or say what one replica gets there: device, gpus, cpu and memory"
            raise self.fail(("pools", pool, "instance"), message, hint=hint, code="instance-unknown")
        return InstanceType(
            name=raw.instance,
            cloud=self._raw.cloud,
            device=raw.device,
            gpus=1 if raw.gpus is None else raw.gpus,
            cpu=raw.cpu,
            memory_bytes=int(raw.memory),
            source=self._document.name,
            as_of="",
        )

    def _nodes(self, name: str, raw: RawPool, machine: InstanceType | None, low: int | None, high: int | None) -> NodePool:
        gpus = raw.gpus if raw.gpus is not None else (min(machine.gpus, 1) if machine else 1)
        if machine is not None and gpus > machine.gpus:
            message = f"one replica cannot get {gpus} GPUs of a machine with {machine.gpus}"
            raise self.fail(("pools", name, "gpus"), message, hint="lower gpus, or name a larger instance")
        default = NodePool(name=name)
        share = _share(machine, gpus) if machine else (default.cpu, default.memory_bytes)
        taint = raw.taint if raw.taint is not None else (default.taint if gpus else "")
        nodes = NodePool(
            name=name,
            device=raw.device or (machine.device if machine else None),
            node_label=raw.label or default.node_label,
            gpu_resource=default.gpu_resource if gpus else None,
            gpus=gpus,
            taint=taint or None,
            cpu=raw.cpu or share[0],
            memory_bytes=int(raw.memory or share[1]),
            min_nodes=low,
            max_nodes=high,
            spot=raw.spot,
        )
        if machine is not None and (nodes.cpu > machine.cpu or nodes.memory_bytes > machine.memory_bytes):
            key = "cpu" if nodes.cpu > machine.cpu else "memory"
            message = f"one replica asks for more {key} than a {machine.name} has"
            raise self.fail(("pools", name, key), message, hint=f"a {machine.name} has {machine.cpu:g} cores and {machine.memory_bytes // GIB}GiB")
        return nodes

    def _price(self, machine: InstanceType | None, raw: RawPool) -> Price | None:
        name = machine.name if machine else raw.instance
        if name is None:
            return None
        said = self._raw.pricing.get(name)
        return _said(name, said) if said else catalog.price(name, self._raw.region)


def _derived(pools: tuple[Pool, ...]) -> Iterator[tuple[str, str]]:
    """Where values come from that nobody wrote and the machine says."""
    for pool in pools:
        if pool.instance is not None:
            for key in ("device", "gpus", "cpu", "memory"):
                yield f"pools.{pool.nodes.name}.{key}", f"catalog: {pool.instance.name}" if pool.instance.as_of else "platform.yaml"


def _share(machine: InstanceType, gpus: int) -> tuple[float, int]:
    """(cores, bytes) of one replica: three quarters of the machine's share that goes with its GPUs, in half cores and whole MiB."""
    part = gpus / machine.gpus if gpus and machine.gpus else 1.0
    mib = 1024**2
    return max(0.5, math.floor(machine.cpu * part * _SHARE_RATIO * 2) / 2), int(machine.memory_bytes * part * _SHARE_RATIO) // mib * mib


def _said(name: str, raw: RawPrice) -> Price:
    amounts = [a for a in (raw.on_demand, raw.spot) if a]
    return Price(
        instance=name,
        on_demand_per_hour=raw.on_demand[0] if raw.on_demand else None,
        spot_per_hour=raw.spot[0] if raw.spot else None,
        currency=amounts[0][1] if amounts else "USD",
        source=raw.source,
        as_of=raw.as_of,
    )


def values(platform: Platform) -> dict[str, str | int | bool | list[str] | None]:
    """Key -> value of the completed platform, in the words of platform.yaml."""
    found: dict[str, str | int | bool | list[str] | None] = {
        "name": platform.name,
        "cloud": platform.cloud,
        "region": platform.region,
        "account": platform.account,
        "cluster.context": platform.context,
        "cluster.version": platform.version,
    }
    if platform.cloud != "existing":
        found |= {"network.cidr": platform.network.cidr, "network.zones": list(platform.network.zones)}
    for pool in platform.pools:
        found |= {f"pools.{pool.nodes.name}.{key}": value for key, value in _pool_values(pool).items()}
    found |= {"store": platform.bucket, "readers": list(platform.readers)}
    found |= {f"addons.{f.name}": getattr(platform.addons, f.name) for f in dataclasses.fields(Addons)}
    found |= {"autoscaler.kind": platform.autoscaler, "autoscaler.prometheus": platform.prometheus}
    found |= {f"images.{prefix}": mirror for prefix, mirror in platform.images.items()}
    budget = None if platform.budget_per_day is None else f"{platform.budget_per_day:g} {platform.currency}/day"
    found |= {"pull_secrets": list(platform.pull_secrets), "budget": budget}
    return {**found, "pulumi.backend": platform.pulumi.backend, "pulumi.secrets": platform.pulumi.secrets_provider}


def _pool_values(pool: Pool) -> dict[str, str | int | bool | list[str] | None]:
    nodes = pool.nodes
    return {
        "instance": pool.instance.name if pool.instance else None,
        "device": nodes.device,
        "gpus": nodes.gpus,
        "cpu": format(nodes.cpu, "g"),
        "memory": f"{nodes.memory_bytes // 1024**2}MiB",
        "nodes": units.show_span(nodes.min_nodes, nodes.max_nodes) or None,
        "spot": nodes.spot,
        "on_demand": pool.on_demand_nodes,
        "taint": nodes.taint or "",
        "label": nodes.node_label,
    }


__all__ = ["FILE_NAME", "load", "platform_from", "values"]
