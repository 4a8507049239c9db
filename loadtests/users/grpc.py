"""Triton over gRPC with serialised messages: one greenlet a request on a raw stub, so no message is encoded in the test.

Channels stay referenced until the process ends: closing one under gevent can hang (the process leaves by os._exit).
"""

from __future__ import annotations

import gevent
import grpc
import grpc.experimental.gevent as grpc_gevent

from loadtests.bodies import grpc_requests
from loadtests.driver import Driver

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CHANNELS = 4
_KEPT: list[grpc.Channel] = []
_READY: list[bool] = []


class GrpcDriver(Driver):
    """Open-loop gRPC."""

    def connect(self) -> None:
        """Serialise every body and open a few channels (each is one HTTP/2 connection)."""
        if not _READY:
            grpc_gevent.init_gevent()
            _READY.append(True)
        self._wire = grpc_requests(self.plan.bodies, model=self.request.model)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channels = [grpc.insecure_channel(self.request.url, options=options) for _ in range(CHANNELS)]
        _KEPT.extend(channels)
        self._stubs = [c.unary_unary(METHOD, request_serializer=None, response_deserializer=None) for c in channels]

    def probe(self, body: int) -> str | None:
        """One call on each channel, which also connects it."""
        for stub in self._stubs:
            try:
                stub(self._wire[body], timeout=self.request.timeout_s, wait_for_ready=False)
            except grpc.RpcError as error:
                return _text(error)
        return None

    def send(self, i: int, now_s: float) -> None:
        """Start a greenlet that calls and waits; the pacing goes on meanwhile."""
        trace = self.traceparent(i, now_s) if self._trace_every else None
        gevent.spawn(self._call, i, trace)

    def expire(self, i: int, handle: object) -> None:
        """Nothing to do: gRPC's own deadline ends the call."""

    def _call(self, i: int, trace: str | None) -> None:
        metadata = (("x-deployctl-trace", "1"), ("traceparent", trace)) if trace else None
        try:
            self._stubs[i % CHANNELS](self._wire[self.body[i]], timeout=self.request.timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            self.failed(i, _text(error))
            return
        except BaseException as error:
            self.crash = error
            self._finished.set()
            return
        self.succeeded(i)


def _text(error: grpc.RpcError) -> str:
    return f"gRPC {error.code().name}: {str(error.details())[:200]}"
