"""A port of one pod on this machine: what enters is a pod, what leaves is a loopback address for as long as it is needed.

Goes through the API server (`kubectl port-forward` does the same), so it works wherever the API does and needs the right
`pods/portforward`. Each connection gets a forward of its own. Refuses to know what is sent.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

from deployctl.errors import ClusterError

_CHUNK = 65536
_IDLE_S = 60.0
_HINT = "ask for the right pods/portforward; docs/guides/kubernetes.md has the whole Role"


@contextlib.contextmanager
def listen(client: Any, namespace: str, pod: str, port: int) -> Iterator[str]:
    """`127.0.0.1:PORT` that leads to the pod's port.

    Args:
        client: an ApiClient of the kubernetes package.
        namespace: of the pod.
        pod: its name.
        port: the port in it.

    Raises:
        ClusterError: the API server, the kubelet or your rights do not allow it (`not-reachable`).
    """
    _open(client, namespace, pod, port).close()  # says at once, and clearly, where it is not possible
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, client, namespace, pod, port), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept


def _open(client: Any, namespace: str, pod: str, port: int) -> Any:
    import urllib3.exceptions
    import websocket
    from kubernetes.client import ApiClient, CoreV1Api
    from kubernetes.client.exceptions import ApiException
    from kubernetes.stream import portforward

    try:
        # A client of its own: the SDK replaces a method of it while it opens a stream.
        api = CoreV1Api(ApiClient(client.configuration))
        return portforward(api.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
    except (ApiException, OSError, websocket.WebSocketException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise ClusterError(f"no port-forward to {pod}", why=_words(error), hint=_HINT, code="not-reachable") from error


def _words(error: Exception) -> str:
    """The server's own words, which the SDK buries among headers."""
    text = " ".join(str(error).split())
    said = re.search(r'"message": ?"((?:[^"\\]|\\.)*)"', text)
    return (said[1] if said else text)[:300]


def _serve(server: socket.socket, client: Any, namespace: str, pod: str, port: int) -> None:
    while True:
        try:
            near, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_carry, args=(near, client, namespace, pod, port), daemon=True).start()


def _carry(near: socket.socket, client: Any, namespace: str, pod: str, port: int) -> None:
    """Bytes both ways until one side ends; a forward that fails ends the connection, which the caller sees."""
    with near, contextlib.suppress(OSError, ClusterError):
        forward = _open(client, namespace, pod, port)
        with contextlib.closing(forward):
            far = forward.socket(port)
            while True:
                ready, _, _ = select.select([near, far], [], [], _IDLE_S)
                for source, sink in ((near, far), (far, near)):
                    if source in ready:
                        data = source.recv(_CHUNK)
                        if not data:
                            return
                        sink.sendall(data)
                if not ready:
                    return
