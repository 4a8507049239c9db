"""One big file as parallel parts of an S3 multipart upload: what enters is a verified file, what leaves is one whole object.

A key is named by its content, so an unfinished upload of that key, whoever began it, is of this content: it is taken up, and
each part that it has is compared with the file before it counts. Refuses to know prefixes and errors of ours but damage.
"""

from __future__ import annotations

import base64
import concurrent.futures
import datetime
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions

from deployctl.adapters.s3.errors import code_of
from deployctl.errors import ModelError

PARALLEL = 8
_MOST_PARTS = 10_000
_TRIES = 3  # of a part that S3 says arrived changed


def check(digest: str, found: str, path: Path) -> None:
    """Refuse a local file that is not what its name says (`blob-damaged`)."""
    if f"sha256:{found}" != digest:
        raise ModelError(
            f"the stored file {digest[:19]}… is damaged",
            why=f"its content hashes to {found[:12]}…",
            where=str(path),
            hint="delete that file and run `deployctl package --force`, which makes it again",
            code="blob-damaged",
        )


def send(client: Any, name: dict[str, str], path: Path, *, digest: str, part_bytes: int, moved: Callable[[int], None]) -> None:
    """Upload `path` as the object `name` (Bucket and Key).

    Raises:
        ModelError: the file is not what `digest` says; the upload is ended (`blob-damaged`).
        botocore.exceptions.ClientError, BotoCoreError: as S3 says; what arrived stays for the next try.
    """
    size = path.stat().st_size
    part_bytes = max(part_bytes, -(-size // _MOST_PARTS))
    upload, there = _found(client, name)
    if upload is None:
        upload = client.create_multipart_upload(**name, ChecksumAlgorithm="SHA256", Metadata={"sha256": digest.removeprefix("sha256:")})["UploadId"]
    named = {**name, "UploadId": upload}
    try:
        parts = _parts(client, named, path, digest=digest, part_bytes=part_bytes, there=there, moved=moved)
        client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    except ModelError:
        client.abort_multipart_upload(**named)
        raise
    except botocore.exceptions.ClientError as error:
        # Another one with the same content finished this very upload, or our own answer was lost on the way.
        if code_of(error) not in ("NoSuchUpload", "404") or not _whole(client, name, size):
            raise


def drop(client: Any, bucket: str, prefix: str, *, older_than_s: float) -> int:
    """Abort uploads under `prefix` that were begun longer ago than this; how many."""
    oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=older_than_s)
    found = [u for u in _unfinished(client, bucket, prefix) if u["Initiated"] < oldest]
    for upload in found:
        client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    return len(found)


def _unfinished(client: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    return [upload for page in pages for upload in page.get("Uploads", ())]


def _found(client: Any, name: dict[str, str]) -> tuple[str | None, dict[int, dict[str, Any]]]:
    """The newest unfinished upload of exactly this key, and its parts by number."""
    uploads = [u for u in _unfinished(client, name["Bucket"], name["Key"]) if u["Key"] == name["Key"]]
    if not uploads:
        return None, {}
    upload: str = max(uploads, key=lambda u: u["Initiated"])["UploadId"]
    try:
        pages = list(client.get_paginator("list_parts").paginate(**name, UploadId=upload))
    except botocore.exceptions.ClientError as error:
        if code_of(error) in ("NoSuchUpload", "404"):  # finished in this moment
            return None, {}
        raise
    return upload, {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}


def _parts(
    client: Any, named: dict[str, str], path: Path, *, digest: str, part_bytes: int, there: dict[int, dict[str, Any]], moved: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Send what is missing. The file is read once, in order: the same bytes are hashed as a whole, by part, and sent."""
    whole, ready = hashlib.sha256(), threading.BoundedSemaphore(PARALLEL)  # as many parts are in memory
    jobs: list[concurrent.futures.Future[dict[str, Any]]] = []
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool, path.open("rb") as file:

        def act(number: int, data: bytes) -> dict[str, Any]:
            try:
                part = _part(client, named, number, data, there.get(number))
                moved(len(data))
                return part
            finally:
                ready.release()

        number = 0
        while data := file.read(part_bytes):
            number += 1
            whole.update(data)
            ready.acquire()
            if any(job.done() and job.exception() for job in jobs):
                ready.release()
                break
            jobs.append(pool.submit(act, number, data))
        parts = [job.result() for job in jobs]
    check(digest, whole.hexdigest(), path)
    return parts


def _part(client: Any, named: dict[str, str], number: int, data: bytes, there: dict[str, Any] | None) -> dict[str, Any]:
    """One part, unless it is there already with this content."""
    total = base64.b64encode(hashlib.sha256(data).digest()).decode()
    if there is not None and there["Size"] == len(data):
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if there.get("ChecksumSHA256", total) == total and ("ChecksumSHA256" in there or there["ETag"].strip('"') == md5):
            return {"PartNumber": number, "ETag": there["ETag"], "ChecksumSHA256": total}
    for attempt in range(1, _TRIES + 1):
        try:
            answer = client.upload_part(**named, PartNumber=number, Body=data, ChecksumSHA256=total)
            break
        except botocore.exceptions.ClientError as error:
            if code_of(error) not in ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch") or attempt == _TRIES:
                raise
    return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": total}


def _whole(client: Any, name: dict[str, str], size: int) -> bool:
    try:
        return bool(client.head_object(**name)["ContentLength"] == size)
    except botocore.exceptions.ClientError:
        return False
