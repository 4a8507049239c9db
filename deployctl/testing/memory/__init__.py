"""Ports that live in memory: what flows are tested with, and the second subject of every contract test.

Each behaves as its real counterpart towards a flow, refusals included. Refuses to know files and processes.
"""

from deployctl.testing.memory.content import MemoryBlobs, MemoryBundles, MemoryObjects
from deployctl.testing.memory.records import MemoryEvidenceStore, MemoryRecordStore
from deployctl.testing.memory.target import MemoryTarget
from deployctl.testing.memory.tools import EchoClient, FakeClock, FixedLauncher, MemoryToolbox, NotedProgress

__all__ = [
    "EchoClient",
    "FakeClock",
    "FixedLauncher",
    "MemoryBlobs",
    "MemoryBundles",
    "MemoryEvidenceStore",
    "MemoryObjects",
    "MemoryRecordStore",
    "MemoryTarget",
    "MemoryToolbox",
    "NotedProgress",
]
