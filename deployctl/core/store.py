"""Where things lie in a shared object store, and who may change what others rely on: pure names and decisions.

    blobs/sha256/<2>/<62>                  content, as the pod's fetcher reads it
    bundles/<64>.json                      manifests, each written after its last blob
    locks/<service>/<env>.json             the lock that `package --push --lock` wrote: keeps its bundle alive
    locks/<service>/<env>/<64>.json        the lock of each bundle that was released by a commit
    releases/<service>/<env>/000007.json   records, created once, never changed
    releases/<service>/<env>/head.json     the newest revision, the holds, and the fence
    leases/<name>.json                     who is changing shared state now

Ages are by the store's own clock (its `Date` less the object's `Last-Modified`), so no two machines have to agree on the
time. Refuses to know any store's protocol.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from deployctl.errors import NotFound, ProjectError

BLOBS, BUNDLES, LOCKS, RELEASES, LEASES = "blobs/", "bundles/", "locks/", "releases/", "leases/"
LEASE_TTL_S = 60.0
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{2})/([0-9a-f]{62})", re.ASCII)
_BUNDLE = re.compile(r"bundles/([0-9a-f]{64})\.json", re.ASCII)
_RELEASE = re.compile(r"releases/([^/]+)/([^/]+)/(\d{6,})\.json", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`s3://bucket/prefix` in parts; the prefix has no slash at either end and may be empty."""

    kind: str
    bucket: str
    prefix: str


def address(text: str) -> Address:
    """The parts of a store's address.

    Raises:
        ProjectError: no bucket, or a prefix that would make other keys than it shows (`store-address`).
    """
    kind, _, rest = text.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not kind or not bucket or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise ProjectError(
            f"{text!r} is no address of a store",
            hint="write it like s3://bucket/prefix in the environment's `store:`",
            code="store-address",
        )
    return Address(kind=kind, bucket=bucket, prefix=prefix)


def hex_of(digest: str) -> str:
    """The 64 hexadecimal digits of `sha256:…`.

    Raises:
        NotFound: it is no digest (`bundle-not-found`).
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise NotFound(f"{digest!r} is no digest", hint="a digest is `sha256:` and 64 hexadecimal digits", code="bundle-not-found")
    return match[1]


def blob_key(digest: str) -> str:
    """Where a blob lies."""
    name = hex_of(digest)
    return f"{BLOBS}sha256/{name[:2]}/{name[2:]}"


def bundle_key(digest: str) -> str:
    """Where a bundle's manifest lies."""
    return f"{BUNDLES}{hex_of(digest)}.json"


def digest_at(key: str) -> str | None:
    """The digest of the blob or bundle that lies at `key`; None where neither may lie there."""
    if match := _BLOB.fullmatch(key):
        return f"sha256:{match[1]}{match[2]}"
    match = _BUNDLE.fullmatch(key)
    return f"sha256:{match[1]}" if match else None


def lock_key(service: str, env: str) -> str:
    """Where the published lock of an environment lies."""
    return f"{LOCKS}{service}/{env}.json"


def pin_key(service: str, env: str, bundle: str) -> str:
    """Where the lock of a release lies whose record is a commit: one for each bundle, so that every commit can be returned to."""
    return f"{LOCKS}{service}/{env}/{hex_of(bundle)}.json"


def releases_prefix(service: str, env: str) -> str:
    """Folder of an environment's records."""
    return f"{RELEASES}{service}/{env}/"


def release_key(service: str, env: str, revision: int) -> str:
    """Where one record lies."""
    return f"{releases_prefix(service, env)}{revision:06d}.json"


def release_at(key: str) -> tuple[str, str, int] | None:
    """(service, environment, revision) of the record at `key`; None where no record may lie there."""
    match = _RELEASE.fullmatch(key)
    return (match[1], match[2], int(match[3])) if match else None


def lease_key(name: str) -> str:
    """Where a lease lies."""
    return f"{LEASES}{name}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who may change shared state, until `ttl_s` after the object was last written.

    Attributes:
        owner: told to whoever has to wait, such as `ada@host (pid 41)`.
        nonce: makes each holder's record unique, so that a repeated request is recognised as one's own.
        token: rises with every holder: what is written carries it, and a holder with a lower one is refused.
        beat: rises with every renewal, so that a renewed object never looks like the one before it.
        ttl_s: how long it holds without being renewed.
        released: given back by its holder; the object stays, so that the token never falls.
    """

    schema_version: Literal[1] = 1
    owner: str
    nonce: str
    token: int
    beat: int = 0
    ttl_s: float = LEASE_TTL_S
    released: bool = False


def lease_is_free(found: Lease | None, age_s: float) -> bool:
    """Whether anybody may take it: never held, given back, or not renewed for its whole TTL.

    Args:
        found: what lies in the store.
        age_s: since it was last written, by the store's clock.
    """
    return found is None or found.released or age_s > found.ttl_s


def next_lease(found: Lease | None, *, owner: str, nonce: str, ttl_s: float = LEASE_TTL_S) -> Lease:
    """The record of the next holder."""
    return Lease(owner=owner, nonce=nonce, token=found.token + 1 if found else 1, ttl_s=ttl_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Pointer to the newest record of one environment.

    The records themselves are the truth: one that is complete counts although the pointer was not moved yet (a killed
    writer). The pointer shows when records are missing at either end, and carries what changes: the holds and the fence.

    Attributes:
        first: the oldest revision that was copied; a cluster keeps only its latest ones, so a copy may begin late.
        revision, digest: of the newest.
        held: contents on hold.
        fence: the highest token that wrote here.
    """

    schema_version: Literal[1] = 1
    first: int = 1
    revision: int = 0
    digest: str | None = None
    held: tuple[str, ...] = ()
    fence: int = 0
