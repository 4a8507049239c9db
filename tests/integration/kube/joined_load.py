"""Clients of a service on the joined nodes: open-loop load on HTTP and gRPC that counts every request which got no answer.

gRPC: one channel that resolves the headless Service by its name and sends each call to the next ready address (round_robin), without a retry.
HTTP: kept connections through the Service, given up at CONNECTION_AGE_S and, as pools do, when the other side has closed them; no retry.
With `retry` a request that failed is sent once more after RETRY_S, and both counts are kept.
"""

import concurrent.futures
import contextlib
import http.client
import json
import select
import threading
import time

import numpy as np
import tritonclient.grpc as grpc_client

CONNECTION_AGE_S = 5.0
TIMEOUT_S = 30
RETRY_S = 0.1  # a client hears of two dead pods one after the other
SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})


class Load:
    """One protocol's clients; `failures` are requests that stayed without an answer, `retried` those that got theirs at the second try."""

    def __init__(self, project, rate_rps, *, retry=False, workers=16):
        self._gap_s, self._retry, self._workers = 1.0 / rate_rps, retry, workers
        self._stopped, self._lock = threading.Event(), threading.Lock()
        self.answers, self.failures, self.retried, self.begun = [], [], [], 0
        self._project = project

    def __enter__(self):
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        self._thread.join()

    @property
    def sent(self):
        return len(self.answers) + len(self.failures)

    def _send(self):
        with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
            planned_s = time.monotonic()
            while not self._stopped.is_set():
                planned_s += self._gap_s
                self._stopped.wait(max(0.0, planned_s - time.monotonic()))
                pool.submit(self._count)

    def _count(self):
        with self._lock:
            self.begun += 1
        try:
            try:
                answer = self.one()
            except Exception as error:
                if not self._retry:
                    raise
                self.retried.append(f"{type(error).__name__}: {error}")
                time.sleep(RETRY_S)
                answer = self.one()
            self.answers.append((time.monotonic(), answer))
        except Exception as error:
            self.failures.append(f"{time.strftime('%X')} {type(error).__name__}: {error}")

    def values(self, since_s):
        """The different answers since a moment."""
        return {answer for at_s, answer in self.answers if at_s >= since_s}


class Http(Load):
    def __init__(self, project, rate_rps, **options):
        super().__init__(project, rate_rps, **options)
        self._local = threading.local()
        self._address = project.joined.routes.open(project.namespace, "echo", 8000)
        self._body = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]})

    def one(self):
        connection = self._kept() or self._opened()
        try:
            connection.request("POST", "/v2/models/sleeper/infer", body=self._body)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != 200:
                raise OSError(f"HTTP {answer.status}: {data[:200]}")
            return json.loads(data)["outputs"][0]["data"][0]
        except BaseException:
            connection.close()
            self._local.connection = None
            raise

    def _kept(self):
        """This thread's connection, unless it is old or closed by the other side."""
        connection = getattr(self._local, "connection", None)
        if connection is None or connection.sock is None:
            return None
        if time.monotonic() - self._local.since_s > CONNECTION_AGE_S or select.select([connection.sock], [], [], 0)[0]:
            connection.close()
            return None
        return connection

    def _opened(self):
        self._local.connection = http.client.HTTPConnection(*self._address.split(":"), timeout=TIMEOUT_S)
        self._local.since_s = time.monotonic()
        return self._local.connection


class Grpc(Load):
    """`resolve_ms`: how soon after a look-up the channel may look again; gRPC's own default is 30,000."""

    def __init__(self, project, rate_rps, *, resolve_ms=30_000, **options):
        super().__init__(project, rate_rps, **options)
        target = project.joined.routes.grpc_target(project.namespace, "echo-pods", 8001)
        words = [("grpc.service_config", SERVICE_CONFIG), ("grpc.dns_min_time_between_resolutions_ms", resolve_ms),
                 ("grpc.use_local_subchannel_pool", 1)]  # fmt: skip
        self._client = grpc_client.InferenceServerClient(target, channel_args=words)
        self._input = grpc_client.InferInput("INPUT0", [1, 4], "FP32")
        self._input.set_data_from_numpy(np.zeros((1, 4), np.float32))

    def one(self):
        return float(self._client.infer("sleeper", [self._input], client_timeout=TIMEOUT_S).as_numpy("OUTPUT0")[0, 0])

    def __exit__(self, *given):
        super().__exit__(*given)
        self._client.close()


@contextlib.contextmanager
def both(project, rate_rps, *, resolve_ms=30_000, **options):
    """(HTTP, gRPC) load at this rate each."""
    with Http(project, rate_rps, **options) as http_load, Grpc(project, rate_rps, resolve_ms=resolve_ms, **options) as grpc_load:
        yield http_load, grpc_load
