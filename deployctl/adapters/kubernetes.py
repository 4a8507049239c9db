"""The Kubernetes API: what enters are plain dicts, what leaves are plain dicts and errors that say what to do next.

Speaks server-side apply as one field manager. Temporary refusals (429, 5xx, a broken connection) are tried again, since
every call here may be repeated; everything else becomes an error of ours with the server's words. Refuses to know what
the objects are for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

from deployctl.core.kube_names import MANAGER
from deployctl.errors import ClusterError, DeployctlError, LockHeld, MachineError, NotFound, ProjectError, Refused

Live = dict[str, Any]

# Every kind that deployctl writes or reads: (apiVersion, kind) -> its name in a path.
KINDS: dict[tuple[str, str], str] = {
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "Event"): "events",
    ("v1", "Pod"): "pods",
    ("v1", "Secret"): "secrets",
    ("v1", "Service"): "services",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("apps/v1", "DaemonSet"): "daemonsets",
    ("apps/v1", "Deployment"): "deployments",
    ("apps/v1", "ReplicaSet"): "replicasets",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "horizontalpodautoscalers",
    ("batch/v1", "Job"): "jobs",
    ("coordination.k8s.io/v1", "Lease"): "leases",
    ("keda.sh/v1alpha1", "ScaledObject"): "scaledobjects",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "prometheusrules",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "servicemonitors",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
}
_AGAIN = {0, 429, 500, 502, 503, 504}
_PATIENCE_S = 20.0
_CALL_S = 30.0
_PAGE = 500


class ApplyConflict(Refused):
    """Another field manager owns fields that the apply would change; `fields` are (path, manager) pairs."""

    def __init__(self, name: str, fields: list[tuple[str, str]]) -> None:
        listed = ", ".join(f"{field} ({manager})" for field, manager in fields[:5])
        super().__init__(
            f"{name} was changed by somebody else; nothing was overwritten",
            why=f"fields and their owners: {listed}",
            hint="deployctl drift shows the values; undo the change there, or write it into deploy.yaml",
            code="field-owned-elsewhere",
        )
        self.fields = fields


class Cluster:
    """One cluster, reached through a kubeconfig context."""

    def __init__(self, context: str | None = None, *, kubeconfig: str | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._context = context
        self._kubeconfig = kubeconfig
        self._sleep = sleep
        self._client: Any = None
        self._ahead_s = 0.0
        self.writes = 0

    def now_s(self) -> float:
        """Unix time by the API server's clock, to the second, as of its last answer: so that no two machines' clocks are compared."""
        return time.time() + self._ahead_s

    def apply(self, wanted: Live, *, manager: str = MANAGER, dry_run: bool = False, force: bool = False) -> Live:
        """Server-side apply; the object as it is, or would be, afterwards.

        Raises:
            ApplyConflict: another manager owns a field with another value, and `force` is not set.
            LockHeld: `wanted` names a resourceVersion that is no longer the object's (`object-changed`).
            DeployctlError: see `_failure`.
        """
        options = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            options["dryRun"] = "All"
        path = f"{_path(wanted['apiVersion'], wanted['kind'], wanted['metadata']['namespace'])}/{quote(wanted['metadata']['name'])}"
        return self._object("PATCH", path, options, wanted, content="application/apply-patch+yaml")

    def create(self, wanted: Live) -> Live:
        """Make an object that must not exist yet.

        Raises:
            LockHeld: it exists (`object-changed`).
        """
        path = _path(wanted["apiVersion"], wanted["kind"], wanted["metadata"]["namespace"])
        return self._object("POST", path, {"fieldManager": MANAGER, "fieldValidation": "Strict"}, wanted)

    def get(self, api: str, kind: str, namespace: str, name: str) -> Live | None:
        """The live object, None if there is none."""
        try:
            return self._object("GET", f"{_path(api, kind, namespace)}/{quote(name)}")
        except NotFound:
            return None

    def list(self, api: str, kind: str, namespace: str | None, *, labels: dict[str, str] | None = None) -> list[Live]:
        """All objects of a kind with the labels, a page at a time; `namespace` None is the whole cluster."""
        options = {"limit": str(_PAGE)}
        if labels:
            options["labelSelector"] = ",".join(f"{k}={v}" for k, v in labels.items())
        items: list[Live] = []
        while True:
            page = self._object("GET", _path(api, kind, namespace), options)
            items += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                return items
            options["continue"] = more

    def read(self, path: str) -> Live | None:
        """The document at an absolute path, None where there is none: for kinds that are only looked at."""
        try:
            return self._object("GET", path)
        except NotFound:
            return None

    def delete(self, api: str, kind: str, namespace: str, name: str, *, uid: str | None = None) -> bool:
        """Delete one object, only that very one where its uid is given; False if it is already gone."""
        body: Live = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground" if kind == "Deployment" else "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self._object("DELETE", f"{_path(api, kind, namespace)}/{quote(name)}", {}, body)
        except NotFound:
            return False
        return True

    def logs(self, namespace: str, pod: str, container: str, *, since_s: float | None, follow: bool) -> Iterator[str]:
        """Log lines of one container with the server's time in front.

        Raises:
            ClusterError: the node does not give them (`logs-unreachable`), or see `_failure`.
        """
        options = {"container": container, "timestamps": "true", "follow": str(follow).lower()}
        if since_s is not None:
            options["sinceSeconds"] = str(max(1, round(since_s)))
        answer = self._send("GET", f"{_path('v1', 'Pod', namespace)}/{quote(pod)}/log", options, None, "", seconds=None if follow else _CALL_S)
        if answer.status >= 400:
            text = answer.read().decode(errors="replace")
            if answer.status in (400, 500, 502, 503):
                words = str(_parsed(text).get("message") or text)[:300]
                hint = "deployctl status   (a container that has not started has no log)"
                raise ClusterError(f"the log of {pod} ({container}) cannot be read", why=words, hint=hint, code="logs-unreachable")
            raise _failure(answer.status, text, f"the log of {pod}", self._name())
        rest = b""
        for chunk in answer.response.stream(8192):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
        if rest:
            yield rest.decode(errors="replace")

    def _object(
        self, method: str, path: str, options: dict[str, str] | None = None, body: Live | None = None, *, content: str = "application/json"
    ) -> Live:
        """One call, tried again while that can help."""
        waited_s, pause_s = 0.0, 0.2
        while True:
            status, text, after_s = self._once(method, path, options or {}, body, content)
            if status < 400 and status:
                if method != "GET" and "dryRun" not in (options or {}):
                    self.writes += 1
                parsed: Live = json.loads(text)
                return parsed
            if status not in _AGAIN or waited_s >= _PATIENCE_S:
                raise _failure(status, text, path, self._name())
            pause_s = min(max(pause_s * 2, after_s), 5.0)
            self._sleep(pause_s)
            waited_s += pause_s

    def _once(self, method: str, path: str, options: dict[str, str], body: Live | None, content: str) -> tuple[int, str, float]:
        """(status or 0 for no answer, text, seconds that the server asks to wait)."""
        import urllib3.exceptions
        from kubernetes.client.exceptions import ApiException

        try:
            answer = self._send(method, path, options, body, content, seconds=_CALL_S)
            text = answer.read().decode(errors="replace")
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            return 0, str(error), 0.0
        with contextlib.suppress(TypeError, ValueError):
            self._ahead_s = parsedate_to_datetime(answer.response.headers.get("Date", "")).timestamp() - time.time()
        after = answer.response.headers.get("Retry-After", "")
        return answer.status, text, float(after) if after.isdigit() else 0.0

    def _send(self, method: str, path: str, options: dict[str, str], body: Live | None, content: str, *, seconds: float | None) -> Any:
        client = self.client()
        headers = {"Accept": "application/json", "User-Agent": MANAGER}
        if body is not None:
            headers["Content-Type"] = content
        client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{client.configuration.host}{path}" + (f"?{urlencode(options)}" if options else "")
        # JSON is YAML: as text it passes the client's own idea of an apply patch unchanged.
        data: Any = json.dumps(body) if body is not None and "yaml" in content else body
        answer = client.call_api(method, url, headers, data, _request_timeout=seconds)
        _Answer.check(answer)
        return _Answer(answer)

    def client(self) -> Any:
        """The SDK's client, made when it is first needed: importing it takes a second.

        Raises:
            ProjectError: the kubeconfig has no such context (`context-unknown`).
        """
        if self._client is not None:
            return self._client
        from kubernetes import config
        from kubernetes.client import Configuration
        from kubernetes.config.config_exception import ConfigException

        settings = Configuration()
        settings.retries = 0
        try:
            load: Any = config.load_kube_config
            file = self._kubeconfig or os.environ.get("KUBECONFIG")
            load(config_file=file, context=self._context, client_configuration=settings, persist_config=False)
        except (ConfigException, OSError) as error:
            raise ProjectError(
                f"there is no usable kubeconfig context {self._context or '(the current one)'}",
                why=str(error)[:300],
                hint="kubectl config get-contexts   (then name one: `context:` of the environment, or --context)",
                code="context-unknown",
            ) from error
        from kubernetes.client import ApiClient

        self._client = ApiClient(settings)
        return self._client

    def _name(self) -> str:
        return self._context or "the current context"


class _Answer:
    """The SDK's response with the three things that are needed of it."""

    def __init__(self, answer: Any) -> None:
        self.response = answer.response
        self.status = int(answer.status)

    def read(self) -> bytes:
        """The whole body."""
        data: bytes = self.response.read()
        self.response.release_conn()
        return data

    @staticmethod
    def check(answer: Any) -> None:
        """The SDK changes between versions; a clear end is better than a late AttributeError."""
        if not hasattr(answer, "response") or not hasattr(answer, "status"):
            raise MachineError(
                "this version of the kubernetes package is not known",
                hint="install deployctl again with its locked versions",
                code="kubernetes-sdk-unknown",
            )


def _path(api: str, kind: str, namespace: str | None) -> str:
    root = f"/api/{api}" if "/" not in api else f"/apis/{api}"
    return f"{root}/namespaces/{quote(namespace)}/{KINDS[(api, kind)]}" if namespace is not None else f"{root}/{KINDS[(api, kind)]}"


def _failure(status: int, text: str, what: str, cluster: str) -> DeployctlError:
    """The error that an answer means."""
    parsed = _parsed(text)
    words = str(parsed.get("message") or text)[:500]
    what = "/".join(what.split("/")[-2:])
    if status == 0:
        return ClusterError(
            f"the API server of {cluster} does not answer",
            why=words,
            hint="what serves goes on serving; check the network or VPN and run the same command again",
            code="cluster-unreachable",
            exit_code=11,
        )
    if status == 401:
        return ClusterError(f"{cluster} does not know you", why=words, hint="log in to the cluster again", code="cluster-login", exit_code=3)
    if status == 403 and "exceeded quota" in words:
        return ClusterError(f"the quota refuses {what}", why=words, hint="ask for a higher quota in this namespace", code="quota-exceeded")
    if status == 403:
        hint = "ask for the permission that the message names; docs/guides/kubernetes.md lists all that are needed"
        return ClusterError(f"you may not do this on {cluster}: {what}", why=words, hint=hint, code="cluster-forbidden", exit_code=3)
    if status == 404 and (missing := re.search(r'namespaces "([^"]+)" not found', words)):
        hint = f"kubectl create namespace {missing[1]}   (or name another one in deploy.yaml; deployctl makes none)"
        return NotFound(f"{cluster} has no namespace {missing[1]}", why=words, hint=hint, code="namespace-missing")
    if status == 404:
        return NotFound(f"{what} does not exist on {cluster}", why=words, hint="check namespace and add-ons", code="object-not-found")
    if status == 409 and (fields := _conflicts(parsed)):
        return ApplyConflict(what, fields)
    if status == 409:
        hint = "run the same command again; it reads the new state first"
        return LockHeld(f"{what} on {cluster} was changed by somebody else at the same moment", why=words, hint=hint, code="object-changed")
    if status in _AGAIN:
        hint = "what serves goes on serving; run the same command again in a minute"
        return ClusterError(
            f"the API server of {cluster} is overloaded or failing ({status})", why=words, hint=hint, code="cluster-busy", exit_code=11
        )
    return ClusterError(
        f"the cluster refuses {what} ({status})", why=words, hint="mend what the message names and run the same command again", code="object-refused"
    )


def _parsed(text: str) -> Live:
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _conflicts(status: Live) -> list[tuple[str, str]]:
    """(field, manager) of every conflict that the server names."""
    found = []
    for cause in (status.get("details") or {}).get("causes", []):
        if cause.get("reason") == "FieldManagerConflict":
            words = str(cause.get("message", ""))
            found.append((str(cause.get("field", "")), words.split('"')[1] if '"' in words else words))
    return found
