"""The ObjectStore contract in memory; tests/integration/s3 has it on a real S3 protocol."""

from deployctl.testing.memory import MemoryObjects
from deployctl.testing.object_contract import ObjectStoreContract


class TestMemoryObjects(ObjectStoreContract):
    def make(self):
        return MemoryObjects()
