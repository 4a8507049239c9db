"""Releases as objects in the cluster, Helm's way: one immutable ConfigMap a revision, one ConfigMap for the holds.

What enters are releases and the content that each names; what leaves are manifests and, read back, the same values with their
chain checked. History is bounded: the oldest revisions go first, so that what is left is always one unbroken chain. Refuses to
know clients.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deployctl.core import codec, kube_names
from deployctl.core.bundle import Bundle
from deployctl.core.platform import ServiceAddress
from deployctl.core.release import Release
from deployctl.errors import ProjectError, Refused

Live = dict[str, Any]
KEPT = 20  # revisions; Helm keeps ten
_MOST_BYTES = 1_000_000  # the API server refuses an object above 1 MiB
_PLAIN_BYTES = 200_000  # what is longer is stored compressed: a plan may hold a trace of many send times
_COMPONENT = "app.kubernetes.io/component"
RELEASE, HOLDS = "release", "holds"


def selector(of: kube_names.Named | None, component: str) -> dict[str, str]:
    """Labels that find the records of one service, or of all."""
    who = kube_names.selector(of) if of is not None else {"app.kubernetes.io/managed-by": kube_names.MANAGER}
    return {**who, _COMPONENT: component}


def release_name(of: kube_names.Named, revision: int) -> str:
    """The ConfigMap of one revision."""
    return kube_names.name("deployctl", of.service, of.env, f"r{revision}")


def holds_name(of: kube_names.Named) -> str:
    """The ConfigMap of the holds."""
    return kube_names.name("deployctl", of.service, of.env, "holds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a release's objects are made of beside its plan: kept with it, so that a rollback needs no checkout.

    `configs` maps each model to its config.pbtxt text under the plan's settings.
    """

    bundle: Bundle
    configs: dict[str, str]


def release_manifest(release: Release, content: Recorded | None, of: ServiceAddress) -> Live:
    """The record of one revision, with its content where the release names a bundle.

    Raises:
        Refused: it does not fit into a ConfigMap (`record-too-big`).
    """
    texts = {"release.json": codec.dumps(release), **({"content.json": codec.dumps(content)} if content else {})}
    plain = {name: text for name, text in texts.items() if len(text) <= _PLAIN_BYTES}
    packed = {f"{name}.gz": base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode() for name, text in texts.items() if name not in plain}
    size = sum(len(t.encode()) for t in (*plain.values(), *packed.values()))
    if size > _MOST_BYTES:
        raise Refused(
            f"the record of revision {release.revision} needs {size} bytes and a ConfigMap holds {_MOST_BYTES}",
            why="the traffic's trace or the bundle's file list stands in it",
            hint="shorten the trace (counts per interval instead of single send times), or pack the model's many small files",
            code="record-too-big",
        )
    item = _config_map(of, release_name(of, release.revision), RELEASE)
    item |= {"immutable": True, "data": plain} | ({"binaryData": packed} if packed else {})
    return item


def holds_manifest(held: Sequence[str], of: ServiceAddress) -> Live:
    """The list of contents on hold."""
    text = json.dumps({"schema_version": 1, "held": list(held)}, indent=2) + "\n"
    return {**_config_map(of, holds_name(of), HOLDS), "data": {"held.json": text}}


def _config_map(of: ServiceAddress, name: str, component: str) -> Live:
    meta = {
        "name": name,
        "namespace": of.namespace,
        "labels": {**kube_names.labels(of), _COMPONENT: component},
        "annotations": {kube_names.OWNER: kube_names.owner(of)},
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}


def read_release(item: Live) -> Release:
    """The release of a live record.

    Raises:
        ProjectError: somebody damaged it (`record-damaged`).
    """
    return codec.loads(Release, _text(item, "release.json"), where=_where(item))


def read_content(item: Live) -> Recorded | None:
    """The content of a live record, None where the release names no bundle.

    Raises:
        ProjectError: somebody damaged it (`record-damaged`).
    """
    text = _text(item, "content.json")
    return codec.loads(Recorded, text, where=_where(item)) if text else None


def read_holds(item: Live | None) -> tuple[str, ...]:
    """Contents on hold; none where there is no list.

    Raises:
        ProjectError: somebody damaged it (`record-damaged`).
    """
    if item is None:
        return ()
    try:
        return tuple(str(h) for h in json.loads(item["data"]["held.json"])["held"])
    except (KeyError, TypeError, ValueError) as error:
        hint = "delete the ConfigMap; `deployctl history` shows which releases rollbacks have left"
        raise ProjectError(f"the list of releases on hold does not parse: {error}", code="record-damaged", where=_where(item), hint=hint) from error


def chain(items: Sequence[Live]) -> list[tuple[Release, Live]]:
    """Live records in order of their revision, each checked against the one before.

    Raises:
        ProjectError: a record is damaged, missing in the middle, or was changed afterwards (`record-damaged`).
    """
    found = sorted(((read_release(item), item) for item in items), key=lambda pair: pair[0].revision)
    for (before, _), (after, item) in itertools.pairwise(found):
        if after.revision != before.revision + 1:
            raise _broken(f"the history has a gap: revision {before.revision + 1} is missing", item)
        if after.parent != before.digest:
            raise _broken(f"revision {before.revision} was changed after revision {after.revision} was recorded", item)
    return found


def surplus(revisions: Sequence[int], serving: int | None) -> list[int]:
    """Revisions to remove, oldest first: all but the newest KEPT, and never what serves or came after it."""
    old = sorted(revisions)[:-KEPT]
    return [r for r in old if serving is None or r < serving]


def _text(item: Live, name: str) -> str:
    plain = (item.get("data") or {}).get(name)
    if plain is not None:
        return str(plain)
    packed = (item.get("binaryData") or {}).get(f"{name}.gz")
    try:
        return gzip.decompress(base64.b64decode(packed)).decode() if packed else ""
    except (binascii.Error, OSError, EOFError, UnicodeDecodeError) as error:
        raise _broken(f"the record cannot be unpacked: {error}", item) from error


def _where(item: Live) -> str:
    return f"ConfigMap {item['metadata'].get('namespace')}/{item['metadata']['name']}"


def _broken(message: str, item: Live) -> ProjectError:
    return ProjectError(
        message,
        why="releases are chained by digest, so that a change is seen",
        where=_where(item),
        hint="restore the record from a copy of the store; a running service is not touched",
        code="record-damaged",
    )
