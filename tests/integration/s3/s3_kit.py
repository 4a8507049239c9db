"""An S3 that fails on purpose: moto serves, and the proxy before it checks checksums, as S3 does and moto does not, and breaks things."""

import base64
import contextlib
import hashlib
import http.client
import http.server
import itertools
import os
import threading
import time
import urllib.parse
from typing import ClassVar

import boto3
from moto.server import ThreadedMotoServer

from deployctl.adapters.s3 import S3Objects
from deployctl.core.store import Address


class Account:
    """Where moto listens, and who we are there."""

    identity: ClassVar = {
        "AWS_ACCESS_KEY_ID": "AKIDTEST",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "nowhere",
    }
    _count = itertools.count(1)

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def bucket(self):
        return Bucket(self.endpoint, f"models-{os.getpid()}-{next(self._count)}")


@contextlib.contextmanager
def moto():
    """A running server as an Account."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield Account("http://{}:{}".format(*server.get_host_and_port()))
    finally:
        server.stop()


class Bucket:
    """One bucket, and what lies in it seen past our own code."""

    def __init__(self, endpoint, name):
        self.endpoint, self.name = endpoint, name
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name="eu-west-1", aws_access_key_id="AKIDTEST", aws_secret_access_key="s")
        self.client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    @property
    def address(self):
        return f"s3://{self.name}/team/x"

    def objects(self, endpoint=None, **options):
        return S3Objects(Address(kind="s3", bucket=self.name, prefix="team/x"), endpoint=endpoint or self.endpoint, **{"backoff_s": 0.01, **options})

    def keys(self, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"team/x/{prefix}")
        return [item["Key"].removeprefix("team/x/") for page in pages for item in page.get("Contents", ())]

    def read(self, key):
        return self.client.get_object(Bucket=self.name, Key=f"team/x/{key}")["Body"].read()

    def write(self, key, data):
        self.client.put_object(Bucket=self.name, Key=f"team/x/{key}", Body=data)

    def unfinished(self):
        return self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])


class FaultProxy(http.server.ThreadingHTTPServer):
    """Forwards to moto. `fault(method, path, headers) -> name or None` is asked for each request; names are methods of Handler.

    Bodies whose sha256 is not the one in their header are refused as S3 refuses them (BadDigest).
    """

    daemon_threads = True

    def __init__(self, upstream):
        self.upstream = urllib.parse.urlsplit(upstream).netloc
        self.fault = lambda method, path, headers: None
        self.asked = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def stop(self):
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request, client_address):
        """A client that hangs up, or was killed, is part of the tests."""


def error_xml(code):
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said by the proxy</Message></Error>".encode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _act(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path))
        fault = self.server.fault(self.command, self.path, self.headers)
        if fault is not None and not isinstance(fault, str):
            fault(self, body)
            return
        if fault:
            getattr(self, f"fault_{fault}")(body)
            return
        self.pass_on(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _act

    def upstream(self, body):
        told = self.headers.get("x-amz-checksum-sha256")
        if told and told != base64.b64encode(hashlib.sha256(body).digest()).decode():
            return 400, [("Content-Type", "application/xml")], error_xml("BadDigest")
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        connection.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, [(k, v) for k, v in answer.getheaders() if k.lower() not in ("content-length", "transfer-encoding", "connection")], data

    def send(self, status, headers, data, *, length=None):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command == "HEAD":
            length = self._head_length
        if status != 204:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    _head_length = None

    def pass_on(self, body):
        if self.command == "HEAD":
            connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
            connection.request("HEAD", self.path, headers=dict(self.headers.items()))
            answer = connection.getresponse()
            answer.read()
            self._head_length = answer.getheader("Content-Length", "0")
            headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("content-length", "transfer-encoding", "connection")]
            connection.close()
            self.send(answer.status, headers, b"")
            return
        self.send(*self.upstream(body))

    def _refuse(self, status, code):
        self._head_length = "0"
        self.send(status, [("Content-Type", "application/xml")], b"" if self.command == "HEAD" else error_xml(code))

    def fault_busy(self, body):
        self._refuse(503, "SlowDown")

    def fault_denied(self, body):
        self._refuse(403, "AccessDenied")

    def fault_expired(self, body):
        self._refuse(400, "ExpiredToken")

    def fault_reset(self, body):
        self.close_connection = True
        self.connection.close()

    def fault_lost_answer(self, body):
        """The store did it; nobody hears of it."""
        self.upstream(body)
        self.fault_reset(body)

    def fault_truncated(self, body):
        status, headers, data = self.upstream(body)
        self.send(status, headers, data[: len(data) // 2], length=len(data))
        self.close_connection = True
        self.connection.close()

    def fault_changed(self, body):
        """One bit of what is read, one bit of what is written."""
        if self.command == "GET":
            status, headers, data = self.upstream(body)
            self.send(status, headers, _flipped(data))
        else:
            self.send(*self.upstream(_flipped(body)))

    def fault_slow(self, body):
        time.sleep(0.1)
        self.pass_on(body)

    def log_message(self, *_):
        pass


def _flipped(data):
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else data
