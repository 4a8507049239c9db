"""Fetches a bundle's blobs and verifies every digest before the model repository exists. Standard library only.

    python3 fetch.py --from FOLDER --into REPOSITORY

FOLDER holds release.json (where blobs are) and bundle.json (which they are; its own digest must be the one that the
release names). REPOSITORY appears whole by one rename, after the last file was verified, or not at all. Blobs come from
`s3://bucket/prefix` with the pod's own identity, or from `http(s)://host/path`.

Exit codes: 0 done, 65 damaged content, 66 a blob is missing, 69 the store cannot be reached, 74 the volume cannot be
written, 77 access denied, 78 the release is wrong or unresolved. The last line of the log begins with `deployctl-fetch:`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import shutil
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree
from typing import Any

DAMAGED, MISSING, UNREACHABLE, VOLUME, DENIED, WRONG = 65, 66, 69, 74, 77, 78
CHUNK_BYTES = 1 << 20
TRIES = 5
PARALLEL = 4
TIMEOUT_S = 30
Keys = tuple[str, str, "str | None"]


class Failure(Exception):
    """An end that the log and the exit code name; `again` says whether another try may help."""

    def __init__(self, code: int, slug: str, message: str, *, again: bool = False) -> None:
        super().__init__(f"deployctl-fetch: {slug}: {message}")
        self.code = code
        self.again = again


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A store that points elsewhere is not the store that was named."""

    def redirect_request(self, *given: Any) -> None:
        """Follow nothing: urllib then raises the answer as an error."""


OPENER = urllib.request.build_opener(NoRedirects)


def safe(path: str) -> list[str]:
    """The path's parts, all plain names."""
    parts = path.split("/")
    if not path or any(p in ("", ".", "..") or "\\" in p or "\0" in p for p in parts):
        raise Failure(WRONG, "path-escapes", f"the path {path!r} leaves the repository")
    return parts


def read_release(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The release and the file list, checked against each other."""
    try:
        release = json.loads((folder / "release.json").read_text())
        text = (folder / "bundle.json").read_bytes()
        bundle = json.loads(text)
    except (OSError, ValueError) as error:
        raise Failure(WRONG, "release-damaged", str(error)) from error
    if not release.get("bundle") or not release.get("store"):
        raise Failure(WRONG, "unresolved", "this manifest was rendered before its digests were known; render it again after `deployctl package`")
    found = f"sha256:{hashlib.sha256(text).hexdigest()}"
    if found != release["bundle"]:
        raise Failure(DAMAGED, "bundle-damaged", f"the file list hashes to {found}, the release names {release['bundle']}")
    return release, bundle


def wanted(release: dict[str, Any], bundle: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Files to fetch; a configuration text of the release takes the place of the packaged file."""
    texts = {f"{model}/config.pbtxt": text for model, text in release["configs"].items()}
    files = [f for f in bundle["files"] if f["path"] not in texts]
    for path in [f["path"] for f in files] + list(texts):
        safe(path)
    return files, texts


class PlainStore:
    """`http(s)://host/path`, readable without credentials."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")

    def request(self, key: str) -> urllib.request.Request:
        """A GET of the object."""
        return urllib.request.Request(f"{self.base}/{key}")


class S3Store:
    """`s3://bucket/prefix` with the identity that the pod was given; requests are signed with AWS signature 4."""

    def __init__(self, address: str, region: str | None, endpoint: str | None) -> None:
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
        # A dot in a bucket's name does not fit the certificate of the bucket's own host.
        self.root = f"{endpoint.rstrip('/')}/{bucket}" if endpoint else f"https://{bucket}.s3.{self.region}.amazonaws.com"
        if not endpoint and "." in bucket:
            self.root = f"https://s3.{self.region}.amazonaws.com/{bucket}"
        self.endpoint = endpoint
        self.keys: Keys | None = None
        self.until = 0.0
        self.lock = threading.Lock()  # parallel downloads ask for the identity once

    def request(self, key: str) -> urllib.request.Request:
        """A signed GET of the object."""
        with self.lock:
            if self.keys is None or time.time() > self.until:
                self.keys, self.until = credentials(self.region, self.endpoint)
            keys = self.keys
        url = f"{self.root}/{urllib.parse.quote(self.prefix + key)}"
        return urllib.request.Request(url, headers=sign(url, self.region, keys, time.gmtime()))


def credentials(region: str, endpoint: str | None) -> tuple[Keys, float]:
    """The pod's identity: (key id, secret, session token), and until when (Unix time). Never the node's."""
    env = os.environ
    if env.get("AWS_ROLE_ARN") and env.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return _web_identity(env, region, endpoint)
    if env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        return _container(env)
    if env.get("AWS_ACCESS_KEY_ID") and env.get("AWS_SECRET_ACCESS_KEY"):
        return (env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env.get("AWS_SESSION_TOKEN")), time.time() + 300
    raise Failure(DENIED, "no-identity", "the pod has no cloud identity; bind its service account to a role that may read the store")


def _web_identity(env: os._Environ[str], region: str, endpoint: str | None) -> tuple[Keys, float]:
    token = pathlib.Path(env["AWS_WEB_IDENTITY_TOKEN_FILE"]).read_text().strip()
    words = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": env["AWS_ROLE_ARN"]}
    words |= {"RoleSessionName": "deployctl-fetch", "WebIdentityToken": token}
    url = (endpoint or f"https://sts.{region}.amazonaws.com").rstrip("/") + "/"
    with opened(urllib.request.Request(url, data=urllib.parse.urlencode(words).encode())) as answer:
        tree = xml.etree.ElementTree.fromstring(answer.read())
    found = {item.tag.rpartition("}")[2]: item.text or "" for item in tree.iter()}
    return (found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]), time.time() + 300


def _container(env: os._Environ[str]) -> tuple[Keys, float]:
    headers = {}
    if env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        headers["Authorization"] = pathlib.Path(env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read_text().strip()
    with opened(urllib.request.Request(env["AWS_CONTAINER_CREDENTIALS_FULL_URI"], headers=headers)) as answer:
        found = json.loads(answer.read())
    return (found["AccessKeyId"], found["SecretAccessKey"], found["Token"]), time.time() + 300


def sign(url: str, region: str, keys: Keys, now: time.struct_time) -> dict[str, str]:
    """Headers of AWS signature version 4 for a GET without a body."""
    key_id, secret, token = keys
    parts = urllib.parse.urlsplit(url)
    stamp, day = time.strftime("%Y%m%dT%H%M%SZ", now), time.strftime("%Y%m%d", now)
    headers = {"host": parts.netloc, "x-amz-content-sha256": hashlib.sha256(b"").hexdigest(), "x-amz-date": stamp}
    if token:
        headers["x-amz-security-token"] = token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"GET\n{parts.path}\n\n{lines}\n{names}\n{headers['x-amz-content-sha256']}"
    scope = f"{day}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    mac = f"AWS4{secret}".encode()
    for word in (day, region, "s3", "aws4_request", text):
        mac = hmac.new(mac, word.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, Signature={mac.hex()}"
    return {name: value for name, value in headers.items() if name != "host"}


def opened(request: urllib.request.Request) -> Any:
    """The answer, or a Failure that says whether to try again."""
    where = urllib.parse.urlsplit(request.full_url)
    name = f"{where.netloc}{where.path}"
    try:
        return OPENER.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        words = error.read(300).decode(errors="replace")
        if error.code == 404:
            raise Failure(MISSING, "blob-missing", f"{name} does not exist") from error
        if error.code in (401, 403):
            raise Failure(DENIED, "access-denied", f"{name}: {error.code} {words}") from error
        if error.code == 429 or error.code >= 500:
            raise Failure(UNREACHABLE, "store-unreachable", f"{name}: {error.code} {words}", again=True) from error
        raise Failure(UNREACHABLE, "store-refused", f"{name}: {error.code} {words}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Failure(UNREACHABLE, "store-unreachable", f"{name}: {error}", again=True) from error


def fetch_once(store: PlainStore | S3Store, file: dict[str, Any], target: pathlib.Path) -> None:
    """Stream one blob into the target and check its size and digest."""
    algorithm, _, name = file["digest"].partition(":")
    if algorithm != "sha256" or len(name) != 64:
        raise Failure(WRONG, "release-damaged", f"{file['digest']!r} is no digest")
    hasher, size = hashlib.sha256(), 0
    with opened(store.request(f"blobs/sha256/{name[:2]}/{name[2:]}")) as answer, target.open("wb") as out:
        while True:
            try:
                chunk = answer.read(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise Failure(UNREACHABLE, "store-unreachable", f"the answer broke off: {error}", again=True) from error
            if not chunk:
                break
            size += len(chunk)
            if size > file["size_bytes"]:
                raise Failure(DAMAGED, "blob-damaged", f"{file['path']}: more than the {file['size_bytes']} bytes of {file['digest']}")
            hasher.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if size < file["size_bytes"]:
        raise Failure(DAMAGED, "blob-damaged", f"{file['path']}: {size} of {file['size_bytes']} bytes of {file['digest']}", again=True)
    if hasher.hexdigest() != name:
        raise Failure(DAMAGED, "blob-damaged", f"{file['path']}: the content hashes to {hasher.hexdigest()}, the release names {name}")
    target.chmod(0o555 if file.get("executable") else 0o444)


def fetch(store: PlainStore | S3Store, file: dict[str, Any], folder: pathlib.Path, backoff_s: float) -> None:
    """One blob, tried again where that may help."""
    target = folder.joinpath(*safe(file["path"]))
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, TRIES + 1):
        try:
            fetch_once(store, file, target)
            return
        except Failure as failure:
            if not failure.again or attempt == TRIES:
                raise
            print(f"{failure}; try {attempt + 1} of {TRIES}", file=sys.stderr)
            time.sleep(backoff_s * 2 ** (attempt - 1))


def build(source: pathlib.Path, into: pathlib.Path, backoff_s: float) -> tuple[int, int]:
    """Fetch everything beside the repository, then rename it into place."""
    release, bundle = read_release(source)
    files, texts = wanted(release, bundle)
    address = release["store"]
    if address.startswith("s3://"):
        store: PlainStore | S3Store = S3Store(address, release.get("region"), release.get("endpoint"))
    elif address.startswith(("http://", "https://")):
        store = PlainStore(address)
    else:
        raise Failure(WRONG, "store-unknown", f"{address!r} is no s3:// or http(s):// address")
    partial = into.with_name(f"{into.name}.partial")
    # Whatever an interrupted run left is not trusted: a restarted container starts from nothing.
    for leftover in (partial, into):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    for path, text in texts.items():
        target = partial.joinpath(*safe(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        jobs = [pool.submit(fetch, store, file, partial, backoff_s) for file in files]
        try:
            for job in concurrent.futures.as_completed(jobs):
                job.result()
        except Failure:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for model in bundle["models"]:
        partial.joinpath(*safe(model["name"]), "1").mkdir(parents=True, exist_ok=True)  # an ensemble's version folder is empty
    partial.rename(into)
    return len(files), sum(file["size_bytes"] for file in files)


def main(words: list[str] | None = None) -> int:
    """Run once and return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--from", dest="source", type=pathlib.Path, required=True)
    parser.add_argument("--into", type=pathlib.Path, required=True)
    parser.add_argument("--backoff", type=float, default=0.5, metavar="SECONDS")
    given = parser.parse_args(words)
    try:
        count, size = build(given.source, given.into, given.backoff)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return failure.code
    except OSError as error:
        print(f"deployctl-fetch: volume-unwritable: {error}", file=sys.stderr)
        return VOLUME
    print(f"deployctl-fetch: verified {count} files, {size} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
