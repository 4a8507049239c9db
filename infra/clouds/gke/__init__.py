"""Google Kubernetes Engine, Standard mode: one regional cluster with the cloud's own node autoscaler."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from deployctl.core.platform import Platform, Pool
from infra.components.cluster import Cluster, kubeconfig
from infra.components.identity import Identity
from infra.components.pool import GpuNodePool, Part, labels, parts, startup_taints, taints
from infra.components.store import KEPT_DAYS, UNFINISHED_DAYS, ModelStore

MADE = True
BRINGS_DEVICE_PLUGIN = True
STARTUP_TAINTS = True
# deployctl's device keys -> Google's names of the same hardware.
_ACCELERATORS = {
    "L4": "nvidia-l4",
    "T4": "nvidia-tesla-t4",
    "A100-40GB": "nvidia-tesla-a100",
    "A100-80GB": "nvidia-a100-80gb",
    "H100": "nvidia-h100-80gb",
}
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


def cluster(platform: Platform) -> Cluster:
    """Make network and cluster: private nodes behind Cloud NAT, workload identity, and one small pool for what the cluster itself runs."""
    account = gcp.Provider("gcp", project=platform.account, region=platform.region, default_labels={"deployctl-platform": platform.name})
    made = Cluster("gke", platform.name, account)
    options = pulumi.ResourceOptions(parent=made)
    network = gcp.compute.Network("network", name=platform.name, auto_create_subnetworks=False, opts=options)
    subnet = gcp.compute.Subnetwork(
        "nodes",
        name=platform.name,
        network=network.id,
        region=platform.region,
        ip_cidr_range=platform.network.cidr,
        private_ip_google_access=True,
        opts=options,
    )
    router = gcp.compute.Router("router", network=network.id, region=platform.region, opts=options)
    gcp.compute.RouterNat(
        "nat",
        router=router.name,
        region=platform.region,
        nat_ip_allocate_option="AUTO_ONLY",
        source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
        opts=options,
    )
    gke = gcp.container.Cluster(
        "cluster",
        name=platform.name,
        location=platform.region,
        node_locations=list(platform.network.zones) or None,
        min_master_version=platform.version,
        network=network.id,
        subnetwork=subnet.id,
        networking_mode="VPC_NATIVE",
        datapath_provider="ADVANCED_DATAPATH",
        ip_allocation_policy=gcp.container.ClusterIpAllocationPolicyArgs(),
        private_cluster_config=gcp.container.ClusterPrivateClusterConfigArgs(enable_private_nodes=True, enable_private_endpoint=False),
        workload_identity_config=gcp.container.ClusterWorkloadIdentityConfigArgs(workload_pool=f"{platform.account}.svc.id.goog"),
        release_channel=gcp.container.ClusterReleaseChannelArgs(channel="REGULAR"),
        remove_default_node_pool=True,
        initial_node_count=1,
        deletion_protection=False,
        opts=options,
    )
    system = gcp.container.NodePool(
        "system",
        cluster=gke.id,
        autoscaling=gcp.container.NodePoolAutoscalingArgs(total_min_node_count=1, total_max_node_count=3),
        node_config=gcp.container.NodePoolNodeConfigArgs(machine_type="e2-standard-4", oauth_scopes=_SCOPES, workload_metadata_config=_metadata()),
        opts=options,
    )
    text = pulumi.Output.all(gke.endpoint, gke.master_auth).apply(
        lambda found: kubeconfig(platform.name, f"https://{found[0]}", found[1]["cluster_ca_certificate"], "gke-gcloud-auth-plugin", [])
    )
    made.reach(text, [gke, system])
    made.connect = f"gcloud container clusters get-credentials {platform.name} --region {platform.region} --project {platform.account}"
    made.register_outputs({"connect": made.connect})
    return made


def _metadata() -> gcp.container.NodePoolNodeConfigWorkloadMetadataConfigArgs:
    """Pods see their own identity, never the node's."""
    return gcp.container.NodePoolNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA")


def pool(platform: Platform, cluster: Cluster, pool: Pool) -> GpuNodePool:
    """Make the node pools of one pool; the total over all zones is bounded."""
    made = GpuNodePool("gke", pool, pulumi.ResourceOptions(parent=cluster))
    for part in parts(pool):
        gcp.container.NodePool(
            part.name,
            name=part.name,
            cluster=platform.name,
            location=platform.region,
            autoscaling=gcp.container.NodePoolAutoscalingArgs(
                total_min_node_count=part.min_nodes, total_max_node_count=part.max_nodes, location_policy="ANY"
            ),
            management=gcp.container.NodePoolManagementArgs(auto_repair=True, auto_upgrade=True),
            node_config=_nodes(pool, part),
            opts=pulumi.ResourceOptions(parent=made, depends_on=[cluster.provider]),
        )
    made.register_outputs({})
    return made


def _nodes(pool: Pool, part: Part) -> gcp.container.NodePoolNodeConfigArgs:
    machine, nodes = pool.instance, pool.nodes
    if machine is None:
        raise pulumi.RunError(f"the pool {nodes.name} names no instance")
    accelerators = None
    if nodes.gpu_resource:
        if nodes.device not in _ACCELERATORS:
            raise pulumi.RunError(f"Google has no name for the device {nodes.device}; known: {', '.join(_ACCELERATORS)}")
        driver = gcp.container.NodePoolNodeConfigGuestAcceleratorGpuDriverInstallationConfigArgs(gpu_driver_version="DEFAULT")
        accelerators = [
            gcp.container.NodePoolNodeConfigGuestAcceleratorArgs(
                type=_ACCELERATORS[nodes.device], count=machine.gpus, gpu_driver_installation_config=driver
            )
        ]
    return gcp.container.NodePoolNodeConfigArgs(
        machine_type=machine.name,
        spot=part.spot,
        labels=labels(nodes),
        taints=[
            gcp.container.NodePoolNodeConfigTaintArgs(key=key, value="present", effect="NO_SCHEDULE")
            for key in (*taints(nodes), *startup_taints(nodes))
        ],
        guest_accelerators=accelerators,
        oauth_scopes=_SCOPES,
        workload_metadata_config=_metadata(),
    )


def store(platform: Platform, cluster: Cluster, bucket: str) -> ModelStore:
    """A Cloud Storage bucket: versioned, encrypted by Google's keys (always so), never public, kept when the stack goes."""
    made = ModelStore("gke", "store", pulumi.ResourceOptions(parent=cluster))
    rule = gcp.storage.BucketLifecycleRuleArgs
    delete = gcp.storage.BucketLifecycleRuleActionArgs(type="Delete")
    abort = gcp.storage.BucketLifecycleRuleActionArgs(type="AbortIncompleteMultipartUpload")
    gcp.storage.Bucket(
        "models",
        name=bucket,
        location=platform.region,
        uniform_bucket_level_access=True,
        public_access_prevention="enforced",
        versioning=gcp.storage.BucketVersioningArgs(enabled=True),
        lifecycle_rules=[
            rule(action=delete, condition=gcp.storage.BucketLifecycleRuleConditionArgs(days_since_noncurrent_time=KEPT_DAYS)),
            rule(action=abort, condition=gcp.storage.BucketLifecycleRuleConditionArgs(age=UNFINISHED_DAYS)),
        ],
        opts=made.kept(),
    )
    made.uri = f"gs://{bucket}"
    made.register_outputs({"uri": made.uri})
    return made


def identity(platform: Platform, cluster: Cluster, store: ModelStore, reader: str) -> Identity:
    """Workload Identity Federation: the Kubernetes service account itself gets the right; no Google account and no annotation between."""
    made = Identity("gke", reader, pulumi.ResourceOptions(parent=cluster))
    pool_name = f"{platform.account}.svc.id.goog"
    number = gcp.organizations.get_project_output(project_id=platform.account, opts=pulumi.InvokeOutputOptions(parent=cluster)).number
    member = number.apply(
        lambda found: (
            f"principal://iam.googleapis.com/projects/{found}/locations/global/workloadIdentityPools/{pool_name}"
            f"/subject/ns/{made.namespace}/sa/{made.service_account}"
        )
    )
    gcp.storage.BucketIAMMember(
        reader.replace("/", "-"),
        bucket=platform.bucket or "",
        role="roles/storage.objectViewer",
        member=member,
        opts=pulumi.ResourceOptions(parent=made, depends_on=[store, cluster.provider]),
    )
    made.register_outputs({})
    return made
