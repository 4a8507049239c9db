"""moto's S3 server once a session, a bucket a test, and our own proxy in front that can fail in every way."""

import pytest
from s3_kit import Bucket, FaultProxy, moto


@pytest.fixture(scope="session")
def account():
    with moto() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_waits_between_tries(monkeypatch):
    """botocore waits up to seconds before it repeats a request; how often it does is what matters here."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)


@pytest.fixture
def bucket(account, monkeypatch) -> Bucket:
    for name, value in account.identity.items():
        monkeypatch.setenv(name, value)
    return account.bucket()


@pytest.fixture
def proxy(account):
    running = FaultProxy(account.endpoint)
    yield running
    running.stop()
