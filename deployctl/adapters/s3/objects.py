"""An S3 bucket as an ObjectStore: what enters are keys, bytes and files, what leaves are the same, each with its sha256 checked.

Region, endpoint and credentials come from boto3's own chain; only an address, and where it must be a region and an endpoint,
are given. Every body is sent with its sha256, which S3 checks, and checked again when it is read. Big files go up in
parallel parts; an upload that was killed is found by its key and goes on where it was. Refuses to know what is stored.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.config
import botocore.exceptions
import tenacity

from deployctl.adapters.s3 import multipart
from deployctl.adapters.s3.errors import code_of, damaged, explained
from deployctl.core.store import Address
from deployctl.errors import CloudError, NotFound
from deployctl.ports import Stored, StoredObject

PART_BYTES = 16 * 1024**2
_CHUNK_BYTES = 1 << 20
_LOST = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}  # somebody else was faster
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_BROKE_OFF = (botocore.exceptions.IncompleteReadError, botocore.exceptions.ResponseStreamingError, botocore.exceptions.ReadTimeoutError)
_TRIES = 4  # of a body that broke off or came changed; requests as such are repeated by botocore
_SUM = "sha256"  # user metadata: the sha256 that the object was written with


R = TypeVar("R")


def _nothing(_bytes: int) -> None:
    """Progress that nobody looks at."""


def _again(error: BaseException) -> bool:
    """A body that broke off or arrived changed may come whole at the next try; refused requests botocore has repeated itself."""
    return isinstance(error, CloudError) and (error.code == "store-damaged" or isinstance(error.__cause__, _BROKE_OFF))


class S3Objects:
    """Objects under `s3://bucket/prefix`.

    Args:
        place: parts of the address.
        region: the bucket's region; None leaves it to boto3's chain.
        endpoint: for other stores than Amazon's; None leaves it to boto3's chain.
        part_bytes: size of a part; bigger files are uploaded in parts (S3 wants 5 MiB at least).
        attempts: how often botocore sends one request.
        backoff_s: first wait before a body that broke off is asked for again.
    """

    def __init__(
        self,
        place: Address,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        part_bytes: int = PART_BYTES,
        attempts: int = 6,
        backoff_s: float = 0.2,
    ) -> None:
        self.address = f"s3://{place.bucket}/{place.prefix}".rstrip("/")
        self._bucket = place.bucket
        self._prefix = f"{place.prefix}/" if place.prefix else ""
        self._region, self._endpoint = region, endpoint
        self._part_bytes, self._attempts, self._backoff_s = part_bytes, attempts, backoff_s

    @cached_property
    def _client(self) -> Any:
        config = botocore.config.Config(
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=32,
            s3={"addressing_style": "path"} if self._endpoint else None,
        )
        with explained("finding your identity", self.address):
            return boto3.session.Session().client("s3", region_name=self._region, endpoint_url=self._endpoint, config=config)

    def get(self, key: str) -> Stored | None:
        """A small object with its tag and age; None if there is none.

        Raises:
            CloudError: see the port.
        """
        return self._retried(f"reading {key}", lambda: self._get(key))

    def _get(self, key: str) -> Stored | None:
        try:
            answer = self._client.get_object(**self._named(key), ChecksumMode="ENABLED")
            data = answer["Body"].read()
        except botocore.exceptions.ClientError as error:
            if code_of(error) in _ABSENT:
                return None
            raise
        promised = answer.get("Metadata", {}).get(_SUM)
        if promised and hashlib.sha256(data).hexdigest() != promised:
            raise damaged(f"reading {key}", self.address, "its content does not hash to the sum that it was written with")
        return Stored(data=data, tag=answer["ETag"], age_s=_age_s(answer, answer["LastModified"]))

    def head(self, key: str) -> StoredObject | None:
        """Size and age of an object; None if there is none."""
        with explained(f"looking for {key}", self.address):
            try:
                answer = self._client.head_object(**self._named(key))
            except botocore.exceptions.ClientError as error:
                if code_of(error) in _ABSENT:
                    return None
                # An answer to HEAD has no body, so 400 may be an expired session or a wrong region: another request is told which.
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + key, MaxKeys=1)
                raise
        written = answer.get("Metadata", {}).get(_SUM)
        age_s = _age_s(answer, answer["LastModified"])
        return StoredObject(key=key, size_bytes=answer["ContentLength"], age_s=age_s, digest=f"sha256:{written}" if written else None)

    def put(self, key: str, data: bytes, *, expected: str | None) -> str | None:
        """Compare and set; see the port."""
        return self._retried(f"writing {key}", lambda: self._put(key, data, expected))

    def _put(self, key: str, data: bytes, expected: str | None) -> str | None:
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        try:
            answer = self._client.put_object(**self._named(key), Body=data, **_sums(data), **condition)
        except botocore.exceptions.ClientError as error:
            if code_of(error) not in (_LOST if expected is None else _LOST | _ABSENT):
                raise
            found = self._get(key)
            # An answer that was lost on the way makes botocore write twice: what lies there may be our own.
            return found.tag if found is not None and found.data == data else None
        tag: str = answer["ETag"]
        return tag

    def upload(self, key: str, path: Path, *, digest: str, moved: Callable[[int], None] = _nothing) -> None:
        """Send a file whole; visible only when all of it arrived. Goes on where a killed upload of the same content was."""
        if path.stat().st_size <= self._part_bytes:
            data = path.read_bytes()
            multipart.check(digest, hashlib.sha256(data).hexdigest(), path)
            self._retried(f"writing {key}", lambda: self._client.put_object(**self._named(key), Body=data, **_sums(data)))
            moved(len(data))
            return
        name = self._named(key)
        with explained(f"writing {key} in parts", self.address):
            multipart.send(self._client, name, path, digest=digest, part_bytes=self._part_bytes, moved=moved)

    def download(self, key: str, into: Path, *, digest: str, moved: Callable[[int], None] = _nothing) -> None:
        """Fetch an object into a new file and check its sha256; a body that breaks off is asked for again."""
        try:
            self._retried(f"reading {key}", lambda: self._download(key, into, digest))
        except CloudError:
            into.unlink(missing_ok=True)
            raise
        moved(into.stat().st_size)

    def _download(self, key: str, into: Path, digest: str) -> None:
        hasher = hashlib.sha256()
        try:
            body = self._client.get_object(**self._named(key))["Body"]
        except botocore.exceptions.ClientError as error:
            if code_of(error) not in _ABSENT:
                raise
            raise NotFound(
                f"{digest[:19]}… is not in the store",
                where=f"{self.address}/{key}",
                hint="run `deployctl package --push` where the model is, which sends whatever is missing",
                code="blob-not-found",
            ) from error
        with into.open("wb") as file:
            for chunk in body.iter_chunks(_CHUNK_BYTES):
                hasher.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise damaged(f"reading {key}", self.address, f"its content hashes to {hasher.hexdigest()[:12]}…")

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, in the order of keys."""
        with explained(f"listing {prefix}", self.address):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    yield StoredObject(key=key, size_bytes=item["Size"], age_s=_age_s(page, item["LastModified"]))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is gone already is no error."""
        rows = [{"Key": self._prefix + key} for key in keys]
        for start in range(0, len(rows), 1000):
            with explained("deleting", self.address):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": rows[start : start + 1000], "Quiet": True})
                if errors := answer.get("Errors"):
                    raise botocore.exceptions.ClientError({"Error": errors[0]}, "DeleteObjects")

    def drop_unfinished(self, older_than_s: float) -> int:
        """End uploads that were begun longer ago than this and never finished; how many there were."""
        with explained("ending unfinished uploads", self.address):
            return multipart.drop(self._client, self._bucket, self._prefix, older_than_s=older_than_s)

    def _named(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _retried(self, what: str, act: Callable[[], R]) -> R:
        def in_words() -> R:
            with explained(what, self.address):
                return act()

        waits = tenacity.wait_exponential_jitter(initial=self._backoff_s, max=5, jitter=self._backoff_s)
        tries = tenacity.stop_after_attempt(_TRIES)
        return tenacity.Retrying(retry=tenacity.retry_if_exception(_again), stop=tries, wait=waits, reraise=True)(in_words)


def _sums(data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data)
    return {"ChecksumSHA256": base64.b64encode(digest.digest()).decode(), "Metadata": {_SUM: digest.hexdigest()}}


def _age_s(answer: dict[str, Any], modified: Any) -> float:
    """Age by the store's own clock; by this machine's where the store does not tell the time."""
    said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    now_s = parsedate_to_datetime(said).timestamp() if said else time.time()
    return max(0.0, now_s - float(modified.timestamp()))
