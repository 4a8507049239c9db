"""platform.yaml to a Platform, the catalog behind it, and how deploy.yaml finds its pool there."""

import datetime
import json
from pathlib import Path

import jsonschema
import pytest

from deployctl.config import catalog, load, schema
from deployctl.config.platform import load as load_platform
from deployctl.config.platform import platform_from, values
from deployctl.config.tree import parse
from deployctl.core import codec
from deployctl.core.kube_place import cluster_spec, device_of
from deployctl.core.platform import GIB, Platform
from deployctl.errors import ProjectError

EKS = """\
name: search
cloud: eks
region: us-east-1
cluster: {version: 1.34}
network: {cidr: 10.8.0.0/16, zones: [us-east-1a, us-east-1b]}
pools:
  gpu-a10g: {instance: g5.xlarge, nodes: 0..8, spot: true, on_demand: 1}
  gpu-big: {instance: g5.12xlarge, gpus: 2, nodes: ..2}
store: acme-models
readers: [search/sentence-search]
images: {nvcr.io/nvidia: mirror.example.test/nv}
pull_secrets: [regcred]
budget: 200 USD/day
pricing: {g5.12xlarge: {on_demand: 5.672 USD/h, source: contract 7, as_of: 2026-11-01}}
pulumi: {backend: "s3://state/pulumi", secrets: "awskms://alias/deployctl"}
"""
EXISTING = "pools: {gpu-l4: {device: L4, cpu: 3, memory: 12GiB, nodes: 4}}\n"


def platform(text):
    return platform_from(parse(text.encode(), "platform.yaml"), Path("/some/where"))


def complaint(text):
    with pytest.raises(ProjectError) as caught:
        platform(text)
    return caught.value


def test_one_pool_is_enough():
    made = platform("pools: {gpu-l4: {}}\n")
    assert (made.name, made.cloud, made.context) == ("where", "existing", None)
    pool = made.pool("gpu-l4")
    assert (pool.nodes.device, pool.nodes.gpus, pool.instance, pool.price) == (None, 1, None, None)
    assert made.addons.keda == "detect"


def test_a_machine_of_the_catalog_says_device_and_share():
    made = platform(EKS)
    small, big = made.pools
    assert (small.nodes.device, small.nodes.gpus, small.nodes.cpu, small.nodes.memory_bytes) == ("A10G", 1, 3.0, 12 * GIB)
    assert (big.nodes.gpus, big.nodes.cpu, big.nodes.memory_bytes) == (2, 18.0, 72 * GIB)  # half of 48 cores and 192 GiB, three quarters of that
    assert (small.nodes.min_nodes, small.nodes.max_nodes, small.nodes.spot, small.on_demand_nodes) == (0, 8, True, 1)
    assert made.context == "search"


def test_a_price_of_the_file_stands_above_the_catalogs_and_no_price_crosses_regions():
    small, big = platform(EKS).pools
    assert (small.price.on_demand_per_hour, small.price.as_of) == (1.006, "2026-06-17")
    assert (big.price.on_demand_per_hour, big.price.source, big.price.as_of) == (5.672, "contract 7", "2026-11-01")
    assert platform(EKS.replace("us-east-1", "eu-central-1")).pools[0].price is None


def test_every_key_arrives_and_is_shown():
    made = platform(EKS)
    assert (made.bucket, made.readers, made.pull_secrets, made.budget_per_day) == ("acme-models", ("search/sentence-search",), ("regcred",), 200.0)
    assert (made.pulumi.backend, made.pulumi.secrets_provider) == ("s3://state/pulumi", "awskms://alias/deployctl")
    shown = values(made)
    assert shown["pools.gpu-a10g.nodes"] == "0..8"
    assert shown["network.zones"] == ["us-east-1a", "us-east-1b"]
    assert made.origins["pools.gpu-a10g.instance"].startswith("platform.yaml:7:")
    assert codec.loads(Platform, codec.dumps(made)) == made


def test_images_are_pulled_from_the_mirror_with_the_longest_prefix():
    made = platform(EXISTING + "images: {nvcr.io: m.test/a, nvcr.io/nvidia: m.test/b}\n")
    assert made.mirrored("nvcr.io/nvidia/tritonserver@sha256:1") == "m.test/b/tritonserver@sha256:1"
    assert made.mirrored("nvcr.io/other@sha256:1") == "m.test/a/other@sha256:1"
    assert made.mirrored("nvcr.iox/other") == "nvcr.iox/other"


@pytest.mark.parametrize(
    ("change", "code", "where", "words"),
    [
        (("cloud: eks", "cloud: ekz"), "config-invalid", "ekz", "did you mean eks"),
        (("region: us-east-1\n", ""), "config-missing-key", "eks", "needs a region"),
        (("zones: [us-east-1a, us-east-1b]", "zones: [us-east-1a]"), "config-missing-key", "{cidr", "at least two zones"),
        (("instance: g5.xlarge", "instance: g5.xlarg"), "instance-unknown", "g5.xlarg,", "did you mean g5.xlarge"),
        (("instance: g5.xlarge", "instance: g2-standard-4"), "config-invalid", "g2-standard-4", "a machine of gke"),
        (("nodes: 0..8, ", ""), "config-missing-key", "{instance: g5.xlarge, spot", "no upper bound"),
        (("spot: true, ", ""), "config-invalid", "1}", "belongs to a spot pool"),
        (("on_demand: 1", "on_demand: 9"), "config-invalid", "9}", "more than the 8 nodes"),
        (("gpus: 2", "gpus: 5"), "config-invalid", "5,", "a machine with 4"),
        (("store: acme-models\n", ""), "config-invalid", "[search", "there is none"),
        (("200 USD", "200 EUR"), "config-invalid", "200 EUR", "never converted"),
        (("as_of: 2026-11-01", "as_of: yesterday"), "config-invalid", "yesterday", "a date like"),
        (("pools:", "pool:"), "config-unknown-key", "pool:", "did you mean pools"),
        (("cloud: eks", "cloud: existing"), "config-invalid", "{cidr", "belongs to a cluster that is made"),
    ],
)
def test_complaints_name_the_line(change, code, where, words):
    text = EKS.replace(*change)
    error = complaint(text)
    file, line, column = error.where.split(":")
    assert (error.code, file) == (code, "platform.yaml")
    assert text.splitlines()[int(line) - 1][int(column) - 1 :].startswith(where)
    assert words in error.message
    assert "deploy.yaml" not in error.hint


def test_no_key_takes_a_secret():
    text = json.dumps(schema.platform_document())
    assert "password" not in text.lower() and "token" not in text.lower() and "access_key" not in text.lower()


def test_the_schema_accepts_what_the_reader_accepts():
    from ruamel.yaml import YAML

    made = schema.platform_document()
    jsonschema.Draft202012Validator.check_schema(made)
    validator = jsonschema.Draft202012Validator(made)
    plain = YAML(typ="safe", pure=True)
    for text in (EKS.replace("1.34", '"1.34"').replace("2026-11-01", '"2026-11-01"'), EXISTING):
        assert not list(validator.iter_errors(plain.load(text)))
    assert list(validator.iter_errors({"pools": {"a": {"nodez": 3}}}))


def test_every_fact_of_the_catalog_says_where_and_when():
    for machine in catalog.instances().values():
        assert machine.source
        datetime.date.fromisoformat(machine.as_of)
        assert machine.cpu > 0 and machine.memory_bytes > 0 and (machine.gpus == 0) == (machine.device is None)
    found = catalog.price("g5.xlarge", "us-east-1")
    assert found is not None and found.source
    assert catalog.price("g5.xlarge", "eu-central-1") is None
    for chart in catalog.charts().values():
        assert chart.version in chart.source  # the tag or release at which it was read
        datetime.date.fromisoformat(chart.as_of)


DEPLOY = """\
model: {source: "triton:."}
slo: {latency: {p99: 100ms}}
traffic: {rate: 40/s}
environments:
  prod: {on: kubernetes, pool: gpu-a10g}
"""


def project(folder, deploy=DEPLOY, platform_text=EKS):
    (folder / "deploy.yaml").write_text(deploy)
    if platform_text is not None:
        (folder / "platform.yaml").write_text(platform_text)
    return load(folder)


def test_identity_reaches_the_service_account_and_never_deployctls_own_keys(tmp_path):
    (tmp_path / "config.pbtxt").write_text('name: "x"\n')
    key = "azure.workload.identity/client-id"
    place = project(tmp_path, DEPLOY.replace("pool: gpu-a10g", f"pool: gpu-a10g, identity: {{{key}: a-b-c}}")).environment("prod")
    assert cluster_spec(place).identity == {key: "a-b-c"}
    for wrong in ("deployctl/owner: other/prod", '"a b": c', f'{key}: "two\\nlines"'):
        with pytest.raises(ProjectError) as caught:
            project(tmp_path, DEPLOY.replace("pool: gpu-a10g", f"pool: gpu-a10g, identity: {{{wrong}}}"))
        assert "identity" in str(caught.value.where) + caught.value.message or "deploy.yaml:5" in str(caught.value.where)
    with pytest.raises(ProjectError) as caught:
        project(tmp_path, DEPLOY.replace("on: kubernetes, pool: gpu-a10g", f"on: local, identity: {{{key}: x}}"))
    assert "belongs to an environment on kubernetes" in caught.value.message


def test_an_environment_finds_its_pool_beside_deploy_yaml(tmp_path):
    place = project(tmp_path).environment("prod")
    spec = cluster_spec(place, image=f"nvcr.io/nvidia/tritonserver@sha256:{'a' * 64}")
    assert device_of(spec.pool) == "A10G"
    assert (spec.context, spec.store, spec.store_region, spec.pull_secrets) == ("search", "s3://acme-models", "us-east-1", ("regcred",))
    assert spec.image.startswith("mirror.example.test/nv/tritonserver@")


def test_without_a_platform_the_pool_is_only_a_name(tmp_path):
    place = project(tmp_path, platform_text=None).environment("prod")
    assert place.platform is None
    assert device_of(cluster_spec(place).pool) == "pool-gpu-a10g"


def test_a_platform_elsewhere_and_a_pool_that_it_has_not(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "gpus.yaml").write_text(EKS)
    deploy = DEPLOY.replace("pool: gpu-a10g", "pool: gpu-a10, platform: shared/gpus.yaml")
    with pytest.raises(ProjectError) as caught:
        project(tmp_path, deploy, None)
    assert (caught.value.code, caught.value.where) == ("pool-unknown", "deploy.yaml:5:32")
    assert "did you mean gpu-a10g" in caught.value.message


def test_a_missing_platform_is_named(tmp_path):
    with pytest.raises(ProjectError) as caught:
        load_platform(tmp_path)
    assert caught.value.code == "platform-not-found"
