"""package --push and --lock: give a bundle to the other machines, and pin it for an environment in a file that people commit."""

from __future__ import annotations

import dataclasses

from deployctl.config import locks
from deployctl.core import codec, store, words
from deployctl.core.bundle import Bundle
from deployctl.core.lock import Lock
from deployctl.core.project import Project
from deployctl.flows._publish import publish, remote_of
from deployctl.ports import ObjectStore, Progress, Toolbox


def check(tools: Toolbox, env: str) -> None:
    """Refuse before any work is done where there is no store (`store-not-named`) or no right to look into it (`store-denied` …)."""
    remote_of(tools, env).objects.head(store.lease_key("store"))


def push(
    project: Project, bundle: Bundle, tools: Toolbox, progress: Progress, *, env: str, send: bool, write_lock: bool, again: bool = False
) -> list[str]:
    """Publish the bundle, then write the lock; what was done, in words.

    Args:
        project: deploy.yaml, completed.
        bundle: as it was packaged.
        tools: ports.
        progress: talk.
        env: environment whose store and lock are meant.
        send: send the bundle to the store.
        write_lock: write `lock/<env>.lock`; with `send` the store keeps a copy, which keeps the bundle from being collected.
        again: send every file, also those that are there.

    Raises:
        ProjectError: the environment names no store (`store-not-named`); CloudError: see `ports.ObjectStore`.
    """
    said = []
    if send:
        done = publish(tools, bundle, progress, env=env, again=again)
        what = f"{words.count(done.sent, 'file')} sent, {done.sent_bytes / 1e6:.1f} MB" if done.sent else "everything was there"
        said.append(f"{bundle.digest} is in {done.address}: {what}")
    if write_lock:
        path = tools.workspace.lock(env)
        before = locks.read(path, env)
        lock = dataclasses.replace(before, bundle=bundle.digest, variant=bundle.variant)
        if lock != before:
            locks.write(path, lock)
        if send:
            _keep(remote_of(tools, env).objects, project.name, lock)
        said.append(f"lock/{env}.lock names it; commit the file, then elsewhere: deployctl up --env {env} --release {bundle.digest}")
    return said


def _keep(objects: ObjectStore, service: str, lock: Lock) -> None:
    """The lock's copy in the store; of two that write at once either may stand, as in git."""
    key, data = store.lock_key(service, lock.env), codec.dumps(lock).encode()
    for _ in range(3):
        found = objects.get(key)
        if (found and found.data == data) or objects.put(key, data, expected=found.tag if found else None):
            return
