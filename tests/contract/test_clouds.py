"""Every cloud, under Pulumi's own mocks: pools, bucket, identities and add-ons as platform.yaml promises them.

The constructors are the SDKs' typed ones: a name that a cloud's API does not have fails here. What a cloud does with the values is not shown.
"""

import json
import re
import sys
from pathlib import Path
from typing import ClassVar

import pulumi
import pulumi.runtime
import pytest

from deployctl.config import catalog
from deployctl.config.platform import platform_from
from deployctl.config.tree import parse
from deployctl.core.platform import PlatformInputs
from infra.clouds import CLOUDS, cloud
from infra.clouds.aks import node_pool_name
from infra.clouds.eks.network import subnets
from infra.components.pool import STARTUP_TAINT, parts
from infra.platform_stack import platform as program

# What the engine would give back beside the inputs.
COMPUTED = {
    "aws:eks/cluster:Cluster": {"endpoint": "https://eks.test", "certificateAuthority": {"data": "Q0E="}},
    "gcp:container/cluster:Cluster": {"endpoint": "10.0.0.1", "masterAuth": {"clusterCaCertificate": "Q0E="}},
    "azure:containerservice/kubernetesCluster:KubernetesCluster": {
        "kubeConfigs": [{"host": "https://aks.test", "clusterCaCertificate": "Q0E="}],
        "oidcIssuerUrl": "https://issuer.test/",
    },
    "azure:authorization/userAssignedIdentity:UserAssignedIdentity": {"clientId": "client-1", "principalId": "principal-1"},
}
STATIC_KEYS = re.compile(r"accesskey|serviceaccount/key|hmackey|password|sastoken|clientsecret|secretkey", re.IGNORECASE)


class Recorder(pulumi.runtime.Mocks):
    """Remembers what was registered."""

    def __init__(self):
        self.seen = []

    def new_resource(self, args):
        self.seen.append(args)
        return f"{args.name}-id", {**args.inputs, "arn": f"arn:{args.name}", **COMPUTED.get(args.typ, {})}

    def call(self, args):
        return {"number": "4711"} if args.token.startswith("gcp:organizations/getProject") else {}


class CloudContract:
    """What each cloud keeps; a new one inherits this with its name, its head of platform.yaml, and how to read its resources."""

    name = ""
    head = ""
    instance = ""
    _runs: ClassVar[dict] = {}

    def text(self, extra=""):
        return (
            f"name: search\ncloud: {self.name}\n{self.head}"
            f"pools:\n  gpu: {{instance: {self.instance}, nodes: 1..8, spot: true, on_demand: 2}}\n"
            f"  firm: {{instance: {self.instance}, nodes: ..3}}\n"
            f"store: acme-models\nreaders: [team-a/echo, team-b/other]\n{extra}"
        )

    def run(self, extra=""):
        """Everything registered, and the stack's outputs; the same text runs once."""
        text = self.text(extra)
        if text not in self._runs:
            spec = platform_from(parse(text.encode(), "platform.yaml"), Path("/nowhere"))
            recorder, outputs = Recorder(), {}
            pulumi.runtime.set_mocks(recorder, project="deployctl", stack="test", preview=False)
            export, pulumi.export = pulumi.export, outputs.__setitem__
            try:
                pulumi.runtime.test(lambda: program(PlatformInputs(platform=spec, charts=catalog.charts())))()
            finally:
                pulumi.export = export
            self._runs[text] = (recorder.seen, outputs)
        return self._runs[text]

    def of(self, typ, extra=""):
        """Inputs of every resource of a type, by logical name."""
        return {r.name: r.inputs for r in self.run(extra)[0] if r.typ == typ}

    def pools(self):
        """Every made pool: pool label, spot, least and most nodes, taints, start-up taints, machine."""
        raise NotImplementedError

    def bucket(self):
        """Which of versioned, encrypted, private, lifecycle, retained hold."""
        raise NotImplementedError

    def identities(self):
        """`namespace/service` -> what it may do."""
        raise NotImplementedError

    def test_it_is_registered(self):
        maker = cloud(self.name)
        assert maker.MADE
        assert all(callable(getattr(maker, part)) for part in ("cluster", "pool", "store", "identity"))

    def test_a_spot_pool_keeps_its_floor_and_no_pool_exceeds_its_bound(self):
        found = [p for p in self.pools() if p["label"] == "gpu"]
        firm = [p for p in found if not p["spot"]]
        assert sum(p["least"] for p in firm) == sum(p["most"] for p in firm) == 2
        assert sum(p["most"] for p in found) == 8
        other = [p for p in self.pools() if p["label"] == "firm"]
        assert (sum(p["most"] for p in other), any(p["spot"] for p in other)) == (3, False)

    def test_every_node_has_label_and_taint_and_a_start_up_taint_where_it_can_be_removed_again(self):
        for pool in self.pools():
            assert pool["taints"] == {"nvidia.com/gpu"}
            assert pool["startup"] == ({STARTUP_TAINT} if cloud(self.name).STARTUP_TAINTS else set())
            assert pool["machine"] == self.instance

    def test_the_start_up_taint_has_its_remover(self):
        found = self.of("kubernetes:apps/v1:DaemonSet")
        if not cloud(self.name).STARTUP_TAINTS:
            assert found == {}
            return
        spec = found["deployctl-gpu-ready"]["spec"]["template"]["spec"]
        words = [c["args"] for c in spec["initContainers"]]
        assert words[0][0] == "wait" and "allocatable" in words[0][2]
        assert words[-1] == ["taint", "node", "$(NODE)", f"{STARTUP_TAINT}:NoSchedule-"]
        assert spec["tolerations"] == [{"operator": "Exists"}]

    def test_the_bucket_is_versioned_encrypted_private_tidied_and_kept(self):
        assert self.bucket() == {"versioned", "encrypted", "private", "lifecycle"}

    def test_each_reader_gets_its_own_right_and_no_key(self):
        assert set(self.identities()) == {"team-a/echo", "team-b/other"}
        assert all(right == "read" for right in self.identities().values())
        for resource in self.run()[0]:
            assert not STATIC_KEYS.search(resource.typ), resource.typ
            for key, value in resource.inputs.items():
                assert not (STATIC_KEYS.search(key) and value not in (False, None)), f"{resource.typ} {key}"

    def test_kubernetes_objects_go_through_the_clusters_own_provider(self):
        seen, _ = self.run()
        providers = [r for r in seen if r.typ == "pulumi:providers:kubernetes"]
        assert [p.name for p in providers] == ["cluster"]
        config = json.loads(providers[0].inputs["kubeconfig"])
        assert "exec" in config["users"][0]["user"]
        assert not set(config["users"][0]["user"]) - {"exec"}
        objects = [r for r in seen if r.typ.startswith("kubernetes:")]
        assert objects and all("cluster" in r.provider for r in objects)

    def test_names_are_unique_and_stable(self):
        names = [(r.typ, r.name) for r in self.run()[0]]
        assert len(names) == len(set(names))

    def test_nothing_is_installed_unasked(self):
        charts = set(self.of("kubernetes:helm.sh/v3:Release"))
        assert charts == (set() if cloud(self.name).BRINGS_DEVICE_PLUGIN else {"gpu"})

    def test_the_device_plugin_starts_on_every_node_of_the_pools(self):
        values = self.of("kubernetes:helm.sh/v3:Release", "addons: {gpu: install}\n")["gpu"]["values"]
        assert values["tolerations"] == [{"operator": "Exists"}]  # the pool's taint, a start-up taint, Azure's on spot nodes
        (term,) = values["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term == {"matchExpressions": [{"key": "deployctl/pool", "operator": "Exists"}]}

    def test_a_run_that_was_killed_finds_its_objects_again(self):
        (provider,) = (r.inputs for r in self.run()[0] if r.typ == "pulumi:providers:kubernetes")
        assert str(provider["upsertExistingObjects"]).lower() == str(provider["enableServerSideApply"]).lower() == "true"

    def test_an_add_on_that_is_asked_for_is_its_projects_chart(self):
        found = self.of("kubernetes:helm.sh/v3:Release", "addons: {keda: install, prometheus: install}\n")
        assert {"keda", "prometheus"} <= set(found)
        assert found["keda"]["chart"] == "keda" and found["keda"]["version"]

    def test_outputs_say_how_to_get_there(self):
        _, outputs = self.run()
        assert {"cloud", "context", "connect", "store", "readers"} == set(outputs)
        assert "search" in outputs["connect"]


class TestEks(CloudContract):
    name = "eks"
    head = "region: eu-central-1\nnetwork: {zones: [eu-central-1a, eu-central-1b, eu-central-1c]}\n"
    instance = "g6.xlarge"

    def pools(self):
        found = []
        for made in (r.inputs for r in self.run()[0] if r.typ == "kubernetes:karpenter.sh/v1:NodePool"):
            spec, template = made["spec"], made["spec"]["template"]
            needs = {r["key"]: r["values"] for r in template["spec"]["requirements"]}
            most = int(spec["limits"].get("nodes") or spec["limits"]["nvidia.com/gpu"])
            found.append(
                {
                    "label": template["metadata"]["labels"]["deployctl/pool"],
                    "spot": needs["karpenter.sh/capacity-type"] == ["spot"],
                    "least": spec.get("replicas", 0),
                    "most": most,
                    "taints": {t["key"] for t in template["spec"]["taints"]},
                    "startup": {t["key"] for t in template["spec"]["startupTaints"]},
                    "machine": needs["node.kubernetes.io/instance-type"][0],
                }
            )
        return found

    def bucket(self):
        found = set()
        if self.of("aws:s3/bucketVersioning:BucketVersioning")["models"]["versioningConfiguration"]["status"] == "Enabled":
            found.add("versioned")
        rules = self.of("aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration")["models"]["rules"]
        if rules[0]["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "AES256":
            found.add("encrypted")
        block = self.of("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock")["models"]
        if all(block[k] for k in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")):
            found.add("private")
        rule = self.of("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration")["models"]["rules"][0]
        if rule["noncurrentVersionExpiration"]["noncurrentDays"] and rule["abortIncompleteMultipartUpload"]["daysAfterInitiation"]:
            found.add("lifecycle")
        return found

    def identities(self):
        rights = self.of("aws:iam/rolePolicy:RolePolicy")
        found = {}
        for name, made in self.of("aws:eks/podIdentityAssociation:PodIdentityAssociation").items():
            actions = {a for s in json.loads(rights[name]["policy"])["Statement"] for a in s["Action"]}
            found[f"{made['namespace']}/{made['serviceAccount']}"] = "read" if actions == {"s3:GetObject", "s3:ListBucket"} else actions
        return found

    def test_nodes_are_private_and_models_do_not_pass_the_nat_gateway(self):
        tables = self.of("aws:ec2/routeTable:RouteTable")
        assert "natGatewayId" in tables["private"]["routes"][0]
        assert self.of("aws:ec2/vpcEndpoint:VpcEndpoint")["s3"]["serviceName"] == "com.amazonaws.eu-central-1.s3"
        assert len(self.of("aws:ec2/subnet:Subnet")) == 6

    def test_only_the_cloud_manages_access(self):
        made = self.of("aws:eks/cluster:Cluster")["cluster"]
        assert made["accessConfig"]["authenticationMode"] == "API"
        assert made["computeConfig"]["enabled"] is True

    def test_every_aws_resource_belongs_to_the_one_account_provider(self):
        seen, _ = self.run()
        assert [r.name for r in seen if r.typ == "pulumi:providers:aws"] == ["aws"]
        assert all("aws" in r.provider for r in seen if r.typ.startswith("aws:"))


class TestGke(CloudContract):
    name = "gke"
    head = "region: europe-west4\naccount: acme-ml\n"
    instance = "g2-standard-4"

    def pools(self):
        found = []
        for name, made in self.of("gcp:container/nodePool:NodePool").items():
            if name == "system":
                continue
            node, bounds = made["nodeConfig"], made["autoscaling"]
            keys = {t["key"] for t in node["taints"]}
            assert node["guestAccelerators"][0]["type"] == "nvidia-l4"
            found.append(
                {
                    "label": node["labels"]["deployctl/pool"],
                    "spot": node["spot"],
                    "least": int(bounds["totalMinNodeCount"]),
                    "most": int(bounds["totalMaxNodeCount"]),
                    "taints": keys - {STARTUP_TAINT},
                    "startup": keys & {STARTUP_TAINT},
                    "machine": node["machineType"],
                }
            )
        return found

    def bucket(self):
        made = self.of("gcp:storage/bucket:Bucket")["models"]
        found = {"encrypted"}  # always, by the cloud's own keys
        found |= {"versioned"} if made["versioning"]["enabled"] else set()
        found |= {"private"} if made["publicAccessPrevention"] == "enforced" and made["uniformBucketLevelAccess"] else set()
        found |= {"lifecycle"} if {r["action"]["type"] for r in made["lifecycleRules"]} == {"Delete", "AbortIncompleteMultipartUpload"} else set()
        return found

    def identities(self):
        found = {}
        for made in self.of("gcp:storage/bucketIAMMember:BucketIAMMember").values():
            namespace, account = re.search(r"projects/4711/.*/subject/ns/(.+)/sa/(.+)", made["member"]).groups()
            found[f"{namespace}/{account}"] = "read" if made["role"] == "roles/storage.objectViewer" else made["role"]
        return found


class TestAks(CloudContract):
    name = "aks"
    head = "region: westeurope\naccount: 0000-1111\n"
    instance = "Standard_NC4as_T4_v3"

    def pools(self):
        found = []
        for made in self.of("azure:containerservice/kubernetesClusterNodePool:KubernetesClusterNodePool").values():
            keys = {t.split("=")[0] for t in made["nodeTaints"]}
            fixed = made.get("nodeCount")
            found.append(
                {
                    "label": made["nodeLabels"]["deployctl/pool"],
                    "spot": made["priority"] == "Spot",
                    "least": int(fixed if fixed is not None else made["minCount"]),
                    "most": int(fixed if fixed is not None else made["maxCount"]),
                    "taints": keys - {STARTUP_TAINT},
                    "startup": keys & {STARTUP_TAINT},
                    "machine": made["vmSize"],
                }
            )
        return found

    def bucket(self):
        made = self.of("azure:storage/account:Account")["models"]
        found = {"encrypted"}  # always, by the cloud's own keys
        found |= {"versioned"} if made["blobProperties"]["versioningEnabled"] else set()
        closed = made["allowNestedItemsToBePublic"] is False and made["sharedAccessKeyEnabled"] is False
        found |= {"private"} if closed and self.of("azure:storage/container:Container")["models"]["containerAccessType"] == "private" else set()
        found |= {"lifecycle"} if self.of("azure:storage/managementPolicy:ManagementPolicy")["models"]["rules"][0]["enabled"] else set()
        return found

    def identities(self):
        roles = self.of("azure:authorization/assignment:Assignment")
        found = {}
        for name, made in self.of("azure:armmsi/federatedIdentityCredential:FederatedIdentityCredential").items():
            _, _, namespace, account = made["subject"].split(":")
            right = roles[name]["roleDefinitionName"]
            found[f"{namespace}/{account}"] = "read" if right == "Storage Blob Data Reader" else right
        return found

    def test_no_local_account_and_a_name_that_azure_takes(self):
        assert self.of("azure:containerservice/kubernetesCluster:KubernetesCluster")["cluster"]["localAccountDisabled"] is True
        assert node_pool_name("gpu-l4-floor") == "gpul4floor"
        with pytest.raises(pulumi.RunError):
            node_pool_name("a-very-long-pool-name")


class TestExisting(CloudContract):
    """On a cluster of somebody else's nothing is made unless it is asked for."""

    name = "existing"

    def text(self, extra=""):
        return f"cluster: {{context: prod}}\npools: {{gpu-l4: {{device: L4}}}}\n{extra}"

    def test_it_is_registered(self):
        assert cloud("existing").MADE is False

    def test_nothing_is_made(self):
        seen, outputs = self.run()
        assert {r.typ for r in seen} <= {
            "pulumi:providers:kubernetes",
            "deployctl:existing:Cluster",
            "deployctl:kubernetes:Addons",
            "pulumi:pulumi:Stack",
        }
        assert next(r for r in seen if r.typ == "pulumi:providers:kubernetes").inputs["context"] == "prod"
        assert outputs["store"] is None

    def test_an_add_on_that_is_asked_for_is_its_projects_chart(self):
        assert set(self.of("kubernetes:helm.sh/v3:Release", "addons: {keda: install}\n")) == {"keda"}

    def test_nothing_is_installed_unasked(self):
        assert not self.of("kubernetes:helm.sh/v3:Release")

    # Its nodes, bucket and identities are somebody else's.
    test_a_spot_pool_keeps_its_floor_and_no_pool_exceeds_its_bound = None
    test_every_node_has_label_and_taint_and_a_start_up_taint_where_it_can_be_removed_again = None
    test_a_run_that_was_killed_finds_its_objects_again = None  # only a service's objects are asked whose they are
    test_the_start_up_taint_has_its_remover = None
    test_the_bucket_is_versioned_encrypted_private_tidied_and_kept = None
    test_each_reader_gets_its_own_right_and_no_key = None
    test_kubernetes_objects_go_through_the_clusters_own_provider = None
    test_outputs_say_how_to_get_there = None


def test_every_cloud_has_a_contract_test():
    assert {c.name for c in CloudContract.__subclasses__()} == set(CLOUDS)


def test_a_missing_sdk_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pulumi_gcp", None)
    monkeypatch.delitem(sys.modules, "infra.clouds.gke", raising=False)
    with pytest.raises(pulumi.RunError, match=r"pip install 'deployctl\[gke\]'"):
        cloud("gke")


def test_subnets_do_not_overlap_and_a_small_range_is_refused():
    private, public = subnets("10.8.0.0/16", 3)
    assert (private, public) == (["10.8.0.0/19", "10.8.32.0/19", "10.8.64.0/19"], ["10.8.128.0/19", "10.8.160.0/19", "10.8.192.0/19"])
    with pytest.raises(pulumi.RunError, match="too small"):
        subnets("10.8.0.0/25", 3)


def test_a_pool_without_spot_is_bought_in_one_part():
    spec = platform_from(parse(b"pools: {a: {nodes: 1..3}, b: {nodes: ..2, spot: true, on_demand: 2}}\n", "platform.yaml"), Path("/nowhere"))
    assert [[(p.name, p.spot, p.min_nodes, p.max_nodes) for p in parts(pool)] for pool in spec.pools] == [
        [("a", False, 1, 3)],
        [("b-floor", False, 2, 2)],
    ]
