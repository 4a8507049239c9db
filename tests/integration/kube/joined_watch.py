"""List and watch of the API server, for what stands in for kubelets and kube-proxy."""

import http.client
import json
import ssl
import threading

from kube_rig import ADMIN

WATCH_S = 300


class Watch(threading.Thread):
    """`listed(items)` hears each complete list, `heard(kind, item)` each change after it. Lists anew whenever the watch breaks."""

    def __init__(self, plane, path, listed, heard):
        super().__init__(daemon=True, name=f"watch {path}")
        self._plane, self._path, self._listed, self._heard = plane, path, listed, heard
        self._stopped, self._connection = threading.Event(), None

    def run(self):
        while not self._stopped.wait(0.1):
            try:
                self._once()
            except (OSError, http.client.HTTPException, ValueError, AssertionError):
                continue

    def _once(self):
        found = self._plane.get(self._path)
        self._listed(found["items"])
        context = ssl.create_default_context(cafile=self._plane.ca)
        self._connection = http.client.HTTPSConnection("127.0.0.1", self._plane.port, timeout=WATCH_S + 20, context=context)
        query = f"watch=1&resourceVersion={found['metadata']['resourceVersion']}&timeoutSeconds={WATCH_S}"
        self._connection.request("GET", f"{self._path}?{query}", headers={"Authorization": f"Bearer {ADMIN}"})
        with self._connection.getresponse() as answer:
            for line in answer:
                event = json.loads(line)
                if event["type"] == "ERROR" or self._stopped.is_set():
                    return
                self._heard(event["type"], event["object"])

    def stop(self):
        """Hear nothing more; the thread ends with its connection."""
        self._stopped.set()
