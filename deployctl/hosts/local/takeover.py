"""What a dead supervisor left: which replicas may be adopted, and the end of everything else that bears our mark.

What enters is the last state, what leaves are the records to go on with. A process is ours if its start environment says so,
whoever its parent is now; a record without its process, or a process without its record, is ended.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from deployctl.adapters import processes
from deployctl.hosts.local.layout import MARK, EnvFolder, HostState, ReplicaRecord


def survivors(folder: EnvFolder, state: HostState, revisions: Collection[int], say: Callable[[str], None]) -> tuple[ReplicaRecord, ...]:
    """The records whose process lives and had answered before; all others are ended and erased.

    Args:
        folder: of the environment.
        state: as the former supervisor wrote it last.
        revisions: releases that are still known.
        say: the log.
    """
    keep = tuple(r for r in state.replicas if whole(r, revisions))
    _end_strangers(folder, state, {r.name for r in keep}, say)
    for record in state.replicas:
        if record not in keep:
            say(f"{record.name} was left {record.state} and is ended")
            erase(folder, record)
    return keep


def whole(record: ReplicaRecord, revisions: Collection[int]) -> bool:
    """Whether this replica may be adopted: its process lives, it had answered, and its release is known."""
    alive = record.process is not None and processes.alive(record.process)
    return alive and record.revision in revisions and record.state in ("ready", "draining", "hung")


def _end_strangers(folder: EnvFolder, state: HostState, known: set[str], say: Callable[[str], None]) -> None:
    keep = {folder.mark(name) for name in known}
    for process, mark in processes.marks(MARK):
        if not mark.startswith(folder.mark()) or mark in keep or (state.door is not None and process == state.door.process):
            continue
        say(f"process {process.pid} was left by a former supervisor and is ended")
        processes.kill_all([process])
    for left in folder.replicas.iterdir() if folder.replicas.is_dir() else ():
        if left.name not in known:
            remove(left, "", (MARK, folder.mark(left.name)))


def erase(folder: EnvFolder, record: ReplicaRecord) -> None:
    """End whatever is left of a replica; its log stays."""
    remove(folder.replicas / record.name, record.shm_prefix, (MARK, folder.mark(record.name)))


def remove(private: Path, shm_prefix: str, mark: tuple[str, str]) -> None:
    """End the marked processes, then remove the private copy and the shared memory that they used."""
    processes.kill_all(processes.marked(*mark))
    if shm_prefix:
        processes.remove_shared_memory(shm_prefix)
    shutil.rmtree(private, ignore_errors=True)
