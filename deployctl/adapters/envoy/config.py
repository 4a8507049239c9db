"""Envoy's configuration: what enters are ports, upstreams and folders, what leaves are plain dictionaries in its v3 API.

The bootstrap is fixed for the life of the process. What changes at run time, the endpoints and the rule for trace headers, stands in
files of one watched folder, so no listener is ever opened anew and no connection of a client is closed. Refuses to know processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BODY_LIMIT_BYTES = 64 * 1024 * 1024
TRACE_HEADER = "x-deployctl-trace"
PROTOCOLS = ("http", "grpc")
# Single inference calls have clusters of their own, because Envoy counts by cluster; both have the same endpoints.
INFER_CLUSTERS = tuple(f"{p}-infer" for p in PROTOCOLS)
READ_CLUSTERS = tuple(f"{p}-read" for p in PROTOCOLS)

_TYPE = "type.googleapis.com/envoy"
_REFUSAL = "only inference, metadata and health are served here"
_NOBODY = "no replica serves at the moment; `deployctl status` says why"
# Without '%': Triton decodes a path that was escaped, and what it then means is not what was matched here.
_MODEL = r"/v2/models/[^/%]+(/versions/[0-9]+)?"
_READABLE = rf"/v2(/health/(live|ready)|{_MODEL[3:]}(/ready)?)?"
_GRPC = "/inference.GRPCInferenceService/"
_GRPC_READS = (
    *(f"{_GRPC}{name}" for name in ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelStreamInfer")),
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
)
_UNBOUNDED = 1_000_000
_BUCKETS_MS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 7000, 10_000, 30_000, 60_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSpec:
    """What the front door does.

    Attributes:
        http_port, grpc_port: loopback ports that clients use.
        http_upstreams, grpc_upstreams: `127.0.0.1:PORT` of the servers in rotation.
        traced: let `traceparent` pass for requests that carry the header X-Deployctl-Trace; otherwise it is always stripped,
            because Triton traces every request that has one, and crashes under many.
    """

    http_port: int
    grpc_port: int
    http_upstreams: tuple[str, ...] = ()
    grpc_upstreams: tuple[str, ...] = ()
    traced: bool = False


# ── what changes at run time ──


def live_files(spec: DoorSpec) -> dict[str, dict[str, Any]]:
    """The files of the watched folder by name: two of endpoints (EDS), two of routes (RDS); each states its version."""
    endpoints = {"http": spec.http_upstreams, "grpc": spec.grpc_upstreams}
    routes = {"http": _http_routes(traced=spec.traced), "grpc": _grpc_routes(traced=spec.traced)}
    return {
        **{f"{p}-endpoints.json": _resource("config.endpoint.v3.ClusterLoadAssignment", _endpoints(p, endpoints[p])) for p in PROTOCOLS},
        **{f"{p}-routes.json": _resource("config.route.v3.RouteConfiguration", _route_config(p, routes[p])) for p in PROTOCOLS},
    }


def live_versions(spec: DoorSpec) -> dict[str, str]:
    """Envoy's statistics that name the versions which it has taken, and the values that mean that it does what the spec says."""
    files = live_files(spec)
    clusters = {f"cluster.{p}-{kind}.version_text": files[f"{p}-endpoints.json"]["version_info"] for p in PROTOCOLS for kind in ("infer", "read")}
    return clusters | {f"http.{p}.rds.{p}.version_text": files[f"{p}-routes.json"]["version_info"] for p in PROTOCOLS}


def _resource(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """A discovery response whose version is the digest of its content: equal versions mean equal behaviour, whoever wrote them."""
    version = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return {"version_info": version, "resources": [{"@type": f"{_TYPE}.{kind}", **content}]}


def _endpoints(protocol: str, upstreams: Sequence[str]) -> dict[str, Any]:
    return {"cluster_name": protocol, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(u)}} for u in upstreams]}]}


def _address(upstream: str) -> dict[str, Any]:
    host, _, port = upstream.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _route_config(name: str, routes: list[dict[str, Any]]) -> dict[str, Any]:
    last = {"match": {"prefix": "/"}, "direct_response": _answer(404, _REFUSAL)}  # over gRPC, Envoy makes UNIMPLEMENTED of 404
    return {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [*routes, last]}]}


def _http_routes(*, traced: bool) -> list[dict[str, Any]]:
    infer_match = {"safe_regex": {"regex": f"{_MODEL}/(infer|generate|generate_stream)"}, "headers": [_method("POST")]}
    too_large = {"name": "content-length", "range_match": {"start": BODY_LIMIT_BYTES + 1, "end": 2**62}}
    read_match = {"safe_regex": {"regex": _READABLE}, "headers": [_method("GET|HEAD")]}
    return [
        {"match": {"path": "/v2/models/stats"}, "direct_response": _answer(404, _REFUSAL)},  # reads like a model's name
        {"match": _and(infer_match, too_large), "direct_response": _answer(413, f"a request may have at most {BODY_LIMIT_BYTES} bytes")},
        *_forward(infer_match, "http-infer", traced=traced, limited=True),
        *_forward(read_match, "http-read", traced=traced, limited=False),
    ]


def _grpc_routes(*, traced: bool) -> list[dict[str, Any]]:
    reads = [route for path in _GRPC_READS for route in _forward({"path": path}, "grpc-read", traced=traced, limited=False)]
    return [*_forward({"path": f"{_GRPC}ModelInfer"}, "grpc-infer", traced=traced, limited=True), *reads]


def _method(pattern: str) -> dict[str, Any]:
    return {"name": ":method", "string_match": {"safe_regex": {"regex": pattern}}}


def _and(match: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    return match | {"headers": [*match.get("headers", []), header]}


def _answer(status: int, text: str) -> dict[str, Any]:
    return {"status": status, "body": {"inline_string": text}}


def _forward(match: dict[str, Any], cluster: str, *, traced: bool, limited: bool) -> list[dict[str, Any]]:
    """The routes to a cluster: without trace headers, and if `traced` also one with them for requests that ask for it.

    No time limit; a body limit for single calls only (`limited`), because a stream's body has no end in sight.
    """
    route: dict[str, Any] = {"match": match, "route": {"cluster": cluster, "timeout": "0s", "retry_policy": _retry_policy()}}
    if limited:
        limit = {"@type": f"{_TYPE}.extensions.filters.http.buffer.v3.BufferPerRoute", "buffer": {"max_request_bytes": BODY_LIMIT_BYTES}}
        route |= {"typed_per_filter_config": {"envoy.filters.http.buffer": limit}, "request_body_buffer_limit": BODY_LIMIT_BYTES}
    asks = {"name": TRACE_HEADER, "string_match": {"exact": "1"}}
    asking = [route | {"match": _and(match, asks)}] if traced else []
    return [*asking, route | {"request_headers_to_remove": ["traceparent", "tracestate"]}]


def _retry_policy() -> dict[str, Any]:
    """A connection that cannot be opened is tried on another upstream, for about a second; nothing that reached a server is repeated."""
    predicate = {"@type": f"{_TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}
    return {
        "retry_on": "connect-failure",
        "num_retries": 8,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.4s"},
        "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": predicate}],
        "host_selection_retry_max_attempts": 3,
    }


# ── what stays ──


def bootstrap(spec: DoorSpec, *, admin: Path, live: Path, connections: int) -> dict[str, Any]:
    """The fixed part.

    Args:
        spec: only its ports matter here.
        admin: unix socket of the admin interface, for this user only.
        live: the watched folder with the files of `live_files`.
        connections: clients' connections that are accepted at most; more are closed at once instead of running out of files.
    """
    monitor = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": connections,
        },
    }
    return {
        "node": {"id": "front-door", "cluster": "deployctl"},  # Envoy wants a name, and nobody reads it
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "overload_manager": {"resource_monitors": [monitor]},
        "stats_flush_interval": "1s",  # histograms can be read once they are merged
        "stats_config": {"histogram_bucket_settings": [{"match": {"suffix": "upstream_rq_time"}, "buckets": list(_BUCKETS_MS)}]},
        "static_resources": {
            "listeners": [_listener("http", spec.http_port, live), _listener("grpc", spec.grpc_port, live)],
            "clusters": [_cluster(p, kind, live) for p in PROTOCOLS for kind in ("infer", "read")],
        },
    }


def _watched(file: str, live: Path) -> dict[str, Any]:
    return {"path_config_source": {"path": str(live / file), "watched_directory": {"path": str(live)}}, "resource_api_version": "V3"}


def _listener(protocol: str, port: int, live: Path) -> dict[str, Any]:
    """Without SO_REUSEPORT: a port that another Envoy of this user holds must be found taken, not shared."""
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": _connection_manager(protocol, live)}
    return {
        "name": protocol,
        "address": _address(f"127.0.0.1:{port}"),
        "enable_reuse_port": False,
        "tcp_backlog_size": 4096,
        "filter_chains": [{"filters": [manager]}],
    }


def _connection_manager(protocol: str, live: Path) -> dict[str, Any]:
    http = {"http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "localhost"}}  # `ab` and old scripts speak it
    extra: dict[str, Any] = {"http2_protocol_options": {"max_concurrent_streams": 65_536}} if protocol == "grpc" else http
    return {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": protocol,
        "codec_type": "HTTP2" if protocol == "grpc" else "HTTP1",
        "rds": {"route_config_name": protocol, "config_source": _watched(f"{protocol}-routes.json", live)},
        "http_filters": [
            {
                "name": "envoy.filters.http.buffer",
                "disabled": True,  # but for the routes that say so
                "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": BODY_LIMIT_BYTES},
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": True},
            },
        ],
        "local_reply_config": _local_replies(protocol),
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": False,
        "normalize_path": True,
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "0s",  # an inference may take its time
        **extra,
    }


def _local_replies(protocol: str) -> dict[str, Any]:
    """What Envoy itself says: JSON over HTTP as Triton does; over gRPC the text becomes the status message."""
    nobody = {"filter": {"response_flag_filter": {"flags": ["UH"]}}, "body": {"inline_string": _NOBODY}}
    if protocol == "grpc":
        return {"mappers": [nobody]}
    return {"mappers": [nobody], "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}}


def _cluster(protocol: str, kind: str, live: Path) -> dict[str, Any]:
    balance = {
        "name": "envoy.load_balancing_policies.least_request",
        "typed_config": {"@type": f"{_TYPE}.extensions.load_balancing_policies.least_request.v3.LeastRequest", "selection_method": "FULL_SCAN"},
    }
    options: dict[str, Any] = {"http2_protocol_options": {}} if protocol == "grpc" else {"http_protocol_options": {}}
    limits = {f"max_{what}": _UNBOUNDED for what in ("connections", "pending_requests", "requests", "retries")}
    return {
        "name": f"{protocol}-{kind}",
        "type": "EDS",
        "eds_cluster_config": {"service_name": protocol, "eds_config": _watched(f"{protocol}-endpoints.json", live)},
        "connect_timeout": "2s",
        "load_balancing_policy": {"policies": [{"typed_extension_config": balance}]},
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 1},  # when all are out, all are in: the last one is never ejected
            "update_merge_window": "0s",  # an ejection within a second of another change counts at once
        },
        "circuit_breakers": {"thresholds": [limits]},
        "outlier_detection": _passive_ejection(),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": options,
            }
        },
    }


def _passive_ejection() -> dict[str, Any]:
    """Out for a second after a failed connection, whatever its answers say: a model that refuses an input is not ill."""
    never = ("consecutive_5xx", "consecutive_gateway_failure", "success_rate", "local_origin_success_rate", "failure_percentage")
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 1,
        "enforcing_consecutive_local_origin_failure": 100,
        **{f"enforcing_{name}": 0 for name in never},
        "interval": "0.5s",
        "base_ejection_time": "1s",
        "max_ejection_time": "1s",
        "max_ejection_percent": 100,
    }
