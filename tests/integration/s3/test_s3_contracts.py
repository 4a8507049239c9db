"""The contracts of the shared store on a real S3 protocol: objects, blobs, records."""

import pytest

from deployctl.adapters.files import FileBlobStore
from deployctl.adapters.remote import Remote
from deployctl.testing.blob_contract import BlobStoreContract
from deployctl.testing.contracts import RecordStoreContract
from deployctl.testing.object_contract import ObjectStoreContract


class _OnS3:
    @pytest.fixture(autouse=True)
    def _bucket(self, bucket):
        self.bucket = bucket

    def remote(self, folder):
        return Remote(self.bucket.objects(), FileBlobStore(folder / "blobs"), folder / "fetch", owner="ada@host (pid 1)", poll_s=0.02)


class TestS3Objects(_OnS3, ObjectStoreContract):
    def make(self):
        return self.bucket.objects()


class TestS3Blobs(_OnS3, BlobStoreContract):
    def make(self, folder):
        return self.remote(folder).blobs


class TestS3Records(_OnS3, RecordStoreContract):
    def make(self, folder):
        return self.remote(folder).records("svc", "prod")
