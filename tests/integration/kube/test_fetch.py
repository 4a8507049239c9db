"""The pod's fetcher as a real process against real stores: whatever is wrong with a blob, no repository comes to be."""

import contextlib
import http.server
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from deployctl import share
from deployctl.core import kube_names, manifests
from deployctl.testing import kube

SCRIPT = Path(share.__file__).resolve().parent / "templates" / "kube" / "fetch.py"
FILES = {"model.py": b"import json\n" * 40, "weights.bin": bytes(range(256)) * 300, "data/vocab.txt": b"one\ntwo\n", "empty": b""}
CONFIG = "echo/config.pbtxt"


def key(digest):
    name = digest.removeprefix("sha256:")
    return f"blobs/sha256/{name[:2]}/{name[2:]}"


def mounted(folder, packed, store, **release):
    """What the kubelet would mount: the data of the ConfigMap as files."""
    made = kube.plan(packed, cluster={"store": store, **{f"store_{k}": v for k, v in release.items()}})
    items = manifests.objects(kube.inputs(packed, made))
    data = next(o for o in items if o["kind"] == "ConfigMap")["data"]
    folder.mkdir(parents=True)
    for name, text in data.items():
        (folder / name).write_text(text)
    return folder


def fetch(source, into, env=None):
    """Run it as the init container does, with nothing but the given environment."""
    words = [sys.executable, "-I", SCRIPT, "--from", source, "--into", into, "--backoff", "0.01"]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"], **(env or {})})


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Store(http.server.ThreadingHTTPServer):
    """Blobs by path; `faults` maps a path to a function of (handler, data) that answers instead."""

    def __init__(self):
        self.blobs, self.faults, self.asked = {}, {}, []
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}/base"

    def fill(self, files):
        self.blobs = {f"/base/{key(kube.digest(data))}": data for data in files.values()}
        self.faults, self.asked = {}, []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        data = self.server.blobs.get(self.path)
        fault = self.server.faults.get(self.path)
        if fault:
            return fault(self, data)
        self.answer(404 if data is None else 200, data or b"")
        return None

    def answer(self, code, data, length=None):
        self.send_response(code)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        with contextlib.suppress(OSError):  # a client that hangs up early is part of the test
            self.wfile.write(data)
        if length is not None and length != len(data):
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def store():
    server = Store()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="eu-west-1", aws_access_key_id="AKIDTEST", aws_secret_access_key="s")
    client.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for data in FILES.values():
        client.put_object(Bucket="models", Key=f"prod/x/{key(kube.digest(data))}", Body=data)
    yield endpoint
    server.stop()


def whole(repository):
    found = tree(repository)
    assert found.pop(CONFIG) == b'name: "echo"\nbackend: "python"\n'
    assert found == {f"echo/1/{name}": data for name, data in FILES.items()}


def test_a_sound_bundle_becomes_a_read_only_repository(store, tmp_path):
    store.fill(FILES)
    result = fetch(mounted(tmp_path / "in", kube.bundle(FILES), store.address), tmp_path / "repository")
    assert result.returncode == 0, result.stderr
    whole(tmp_path / "repository")
    assert oct((tmp_path / "repository/echo/1/model.py").stat().st_mode)[-3:] == "444"
    assert result.stderr.startswith("deployctl-fetch: verified 4 files")


def test_from_s3_with_signed_requests(s3, tmp_path):
    source = mounted(tmp_path / "in", kube.bundle(FILES), "s3://models/prod/x", region="eu-west-1", endpoint=s3)
    result = fetch(source, tmp_path / "repository", {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "s"})
    assert result.returncode == 0, result.stderr
    whole(tmp_path / "repository")


def test_from_s3_with_the_identity_of_the_service_account(s3, tmp_path):
    source = mounted(tmp_path / "in", kube.bundle(FILES), "s3://models/prod/x", region="eu-west-1", endpoint=s3)
    (tmp_path / "token").write_text("a.b.c")
    env = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/models", "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token")}
    result = fetch(source, tmp_path / "repository", env)
    assert result.returncode == 0, result.stderr
    whole(tmp_path / "repository")


def test_from_s3_with_the_container_credentials_of_a_pod_identity(s3, store, tmp_path):
    source = mounted(tmp_path / "in", kube.bundle(FILES), "s3://models/prod/x", region="eu-west-1", endpoint=s3)
    store.fill({})
    store.blobs["/credentials"] = json.dumps({"AccessKeyId": "AKIDTEST", "SecretAccessKey": "s", "Token": "t"}).encode()
    host = store.address.removesuffix("/base")
    result = fetch(source, tmp_path / "repository", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{host}/credentials"})
    assert result.returncode == 0, result.stderr
    assert store.asked == ["/credentials"]
    whole(tmp_path / "repository")


def test_without_an_identity_it_says_so_and_never_asks_the_node(s3, tmp_path):
    source = mounted(tmp_path / "in", kube.bundle(FILES), "s3://models/prod/x", region="eu-west-1", endpoint=s3)
    result = fetch(source, tmp_path / "repository")
    assert result.returncode == 77
    assert result.stderr.splitlines()[-1].startswith("deployctl-fetch: no-identity: ")


def test_temporary_faults_are_ridden_out(store, tmp_path):
    store.fill(FILES)
    seen = {}

    def flaky(handler, data):
        """503, then a reset in the middle, then 429, then the whole."""
        count = seen[handler.path] = seen.get(handler.path, 0) + 1
        if count == 1:
            handler.answer(503, b"SlowDown")
        elif count == 2:
            handler.answer(200, data[: len(data) // 2], length=len(data) + (not data))
        elif count == 3:
            handler.answer(429, b"")
        else:
            handler.answer(200, data)

    store.faults = dict.fromkeys(store.blobs, flaky)
    result = fetch(mounted(tmp_path / "in", kube.bundle(FILES), store.address), tmp_path / "repository")
    assert result.returncode == 0, result.stderr
    # Half of an empty file is all of it: its second answer was already right.
    assert sorted(seen.values()) == [2, 4, 4, 4]
    whole(tmp_path / "repository")


def test_an_interrupted_run_is_started_from_nothing(store, tmp_path):
    store.fill(FILES)
    source = mounted(tmp_path / "in", kube.bundle(FILES), store.address)
    for name in ("repository", "repository.partial"):
        (tmp_path / name / "echo" / "1").mkdir(parents=True)
        (tmp_path / name / "echo" / "1" / "stranger.py").write_text("left by nobody knows whom")
    assert fetch(source, tmp_path / "repository").returncode == 0
    whole(tmp_path / "repository")
    assert not (tmp_path / "repository.partial").exists()


def test_a_manifest_that_was_rendered_unresolved_does_not_start(tmp_path):
    made = kube.plan(None, cluster={"image": None, "store": None})
    data = next(o for o in manifests.objects(kube.inputs(None, made)) if o["kind"] == "ConfigMap")["data"]
    (tmp_path / "in").mkdir()
    for name, text in data.items():
        (tmp_path / "in" / name).write_text(text)
    result = fetch(tmp_path / "in", tmp_path / "repository")
    assert (result.returncode, (tmp_path / "repository").exists()) == (78, False)
    assert "deployctl-fetch: unresolved: " in result.stderr


def test_a_full_or_unwritable_volume_has_its_own_end(store, tmp_path):
    store.fill(FILES)
    source = mounted(tmp_path / "in", kube.bundle(FILES), store.address)
    (tmp_path / "file").write_text("a file where a folder is needed")
    result = fetch(source, tmp_path / "file" / "repository")
    assert result.returncode == 74
    assert "deployctl-fetch: volume-unwritable: " in result.stderr


# Each takes (random, the store, folder of the mount) and breaks one thing; the exit codes that are right for it.
def _flip(rng, store, _):
    path, data = rng.choice([(p, d) for p, d in store.blobs.items() if d])
    at = rng.randrange(len(data))
    store.blobs[path] = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    return {65}


def _truncate(rng, store, _):
    path, data = rng.choice([(p, d) for p, d in store.blobs.items() if d])
    store.blobs[path] = data[: rng.randrange(len(data))]
    return {65}


def _extend(rng, store, _):
    path = rng.choice(list(store.blobs))
    store.blobs[path] += rng.randbytes(rng.choice([1, 100, 3_000_000]))
    return {65}


def _missing(rng, store, _):
    del store.blobs[rng.choice(list(store.blobs))]
    return {66}


def _swap(rng, store, _):
    one, two = rng.sample(list(store.blobs), 2)
    store.blobs[one], store.blobs[two] = store.blobs[two], store.blobs[one]
    return {65}


def _same_size(rng, store, _):
    path, data = rng.choice([(p, d) for p, d in store.blobs.items() if d])
    store.blobs[path] = rng.randbytes(len(data))
    return {65}


def _breaks_off(rng, store, _):
    path = rng.choice([p for p, d in store.blobs.items() if d])
    cut = rng.randrange(len(store.blobs[path]))
    store.faults[path] = lambda handler, data: handler.answer(200, data[:cut], length=len(data))
    return {65, 69}


def _refuses(rng, store, _):
    code = rng.choice([400, 401, 403, 409, 500, 503])
    store.faults[rng.choice(list(store.blobs))] = lambda handler, data: handler.answer(code, b"<Error/>")
    return {77} if code in (401, 403) else {69}


def _redirects(rng, store, _):
    def elsewhere(handler, _data):
        handler.send_response(rng.choice([301, 302, 307]))
        handler.send_header("Location", store.address + "/other")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    store.blobs["/base/other"] = b"evil"
    store.faults[rng.choice([p for p in store.blobs if p != "/base/other"])] = elsewhere
    return {69}


def _list_changed(rng, _, folder):
    text = (folder / "bundle.json").read_text()
    bundle = json.loads(text)
    change = rng.choice(["digest", "size_bytes", "path", "drop", "add"])
    row = rng.choice(bundle["files"])
    if change == "drop":
        bundle["files"].remove(row)
    elif change == "add":
        bundle["files"].append({**row, "path": "echo/1/more.py"})
    else:
        row[change] = {"digest": f"sha256:{'0' * 64}", "size_bytes": row["size_bytes"] + 1, "path": "../escaped"}[change]
    (folder / "bundle.json").write_text(json.dumps(bundle, indent=2, sort_keys=True) + "\n")
    return {65}


def _list_damaged(rng, _, folder):
    path = folder / rng.choice(["bundle.json", "release.json"])
    data = path.read_text()
    path.write_text(data[: rng.randrange(len(data) - 2)])
    return {65, 78}


def _config_escapes(_, __, folder):
    release = json.loads((folder / "release.json").read_text())
    release["configs"] = {"../../elsewhere": "name: 1"}
    (folder / "release.json").write_text(kube_names.json_text(release))
    return {78}


MUTATIONS = [_flip, _truncate, _extend, _missing, _swap, _same_size, _breaks_off, _refuses, _redirects, _list_changed, _list_damaged, _config_escapes]


def _mutate_and_run(store, folder, seed):
    rng = random.Random(seed)
    store.fill(FILES)
    source = mounted(folder / "in", kube.bundle(FILES), store.address)
    mutation = MUTATIONS[seed % len(MUTATIONS)]
    codes = mutation(rng, store, source)
    result = fetch(source, folder / "models" / "repository")
    assert result.returncode in codes, (mutation.__name__, seed, result.stderr)
    # The init container failed, so no pod starts; and there is nothing that Triton could be pointed at.
    assert not (folder / "models" / "repository").exists(), (mutation.__name__, seed)
    assert result.stderr.splitlines()[-1].startswith("deployctl-fetch: "), result.stderr
    assert not list(folder.glob("escaped*"))
    shutil.rmtree(folder)


@pytest.mark.parametrize("mutation", range(len(MUTATIONS)), ids=[m.__name__.strip("_") for m in MUTATIONS])
def test_nothing_starts_on_a_damaged_bundle(store, tmp_path, mutation):
    for round_ in range(5):  # 60 in all; the full count runs below
        seed = round_ * len(MUTATIONS) + mutation
        _mutate_and_run(store, tmp_path / str(seed), seed)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_nothing_starts_on_500_damaged_bundles(store, tmp_path):
    for seed in range(1000, 1504):
        _mutate_and_run(store, tmp_path / str(seed), seed)
