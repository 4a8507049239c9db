"""Azure Kubernetes Service with the cloud's own node autoscaler; identities by federation, no local accounts."""

from __future__ import annotations

import re

import pulumi
import pulumi_azure as azure

from deployctl.core.platform import Platform, Pool
from infra.components.cluster import Cluster, kubeconfig
from infra.components.identity import Identity
from infra.components.pool import GpuNodePool, labels, parts, taints
from infra.components.store import KEPT_DAYS, ModelStore

MADE = True
BRINGS_DEVICE_PLUGIN = False
# A taint of a node pool can only be removed through Azure's own API (https://learn.microsoft.com/azure/aks/use-node-taints), and this SDK
# has no "initialization taints". A pod then waits for a GPU as it does for any resource.
STARTUP_TAINTS = False
# The application that stands for every AKS API server: https://azure.github.io/kubelogin/concepts/aks.html
_AKS_SERVER = "6dae42f8-4368-4678-94ff-3960e28e3630"


class AksCluster(Cluster):
    """The cluster with what pools and identities need of it."""

    id: pulumi.Output[str]
    issuer: pulumi.Output[str]
    group: pulumi.Output[str]


class AksStore(ModelStore):
    """The store with what identities need of it."""

    scope: pulumi.Output[str]


def cluster(platform: Platform) -> AksCluster:
    """Make resource group and cluster: Entra ID only, workload identity, Cilium, one small pool for what the cluster itself runs."""
    features = azure.ProviderFeaturesArgs()
    account = azure.Provider("azure", subscription_id=platform.account, features=features)
    made = AksCluster("aks", platform.name, account)
    options = pulumi.ResourceOptions(parent=made)
    tags = {"deployctl-platform": platform.name}
    group = azure.core.ResourceGroup("group", name=platform.name, location=platform.region, tags=tags, opts=options)
    network = azure.network.VirtualNetwork(
        "network", location=platform.region, resource_group_name=group.name, address_spaces=[platform.network.cidr], tags=tags, opts=options
    )
    subnet = azure.network.Subnet(
        "nodes", resource_group_name=group.name, virtual_network_name=network.name, address_prefixes=[platform.network.cidr], opts=options
    )
    zones = list(platform.network.zones) or None
    aks = azure.containerservice.KubernetesCluster(
        "cluster",
        name=platform.name,
        location=platform.region,
        resource_group_name=group.name,
        dns_prefix=platform.name,
        kubernetes_version=platform.version,
        identity=azure.containerservice.KubernetesClusterIdentityArgs(type="SystemAssigned"),
        default_node_pool=azure.containerservice.KubernetesClusterDefaultNodePoolArgs(
            name="system",
            vm_size="Standard_D4s_v5",
            auto_scaling_enabled=True,
            min_count=1,
            max_count=3,
            only_critical_addons_enabled=False,
            vnet_subnet_id=subnet.id,
            zones=zones,
        ),
        network_profile=azure.containerservice.KubernetesClusterNetworkProfileArgs(
            network_plugin="azure", network_plugin_mode="overlay", network_data_plane="cilium", network_policy="cilium"
        ),
        azure_active_directory_role_based_access_control=azure.containerservice.KubernetesClusterAzureActiveDirectoryRoleBasedAccessControlArgs(
            azure_rbac_enabled=True
        ),
        local_account_disabled=True,
        oidc_issuer_enabled=True,
        workload_identity_enabled=True,
        role_based_access_control_enabled=True,
        tags=tags,
        opts=options,
    )
    made.id, made.issuer, made.group = aks.id, aks.oidc_issuer_url, group.name
    arguments = ["get-token", "--login", "azurecli", "--server-id", _AKS_SERVER]
    text = aks.kube_configs.apply(
        lambda found: kubeconfig(platform.name, found[0]["host"], found[0]["cluster_ca_certificate"], "kubelogin", arguments)
    )
    made.reach(text, [aks])
    made.connect = f"az aks get-credentials --resource-group {platform.name} --name {platform.name} --context {platform.context}"
    made.register_outputs({"connect": made.connect})
    return made


def node_pool_name(name: str) -> str:
    """A pool's name as Azure takes it: at most 12 lower-case letters and digits.

    Raises:
        RunError: the name does not fit, and cutting it could make two pools one.
    """
    short = re.sub(r"[^a-z0-9]", "", name)
    if len(short) > 12:
        raise pulumi.RunError(f"Azure's node pool names have at most 12 letters and digits; {name} has {len(short)}")
    return short


def pool(platform: Platform, cluster: AksCluster, pool: Pool) -> GpuNodePool:
    """Make the node pools of one pool."""
    made = GpuNodePool("aks", pool, pulumi.ResourceOptions(parent=cluster))
    nodes = pool.nodes
    if pool.instance is None:
        raise pulumi.RunError(f"the pool {nodes.name} names no instance")
    for part in parts(pool):
        spot = {"priority": "Spot", "eviction_policy": "Delete", "spot_max_price": -1.0} if part.spot else {"priority": "Regular"}
        fixed = part.min_nodes == part.max_nodes
        size = {"node_count": part.max_nodes} if fixed else {"auto_scaling_enabled": True, "min_count": part.min_nodes, "max_count": part.max_nodes}
        azure.containerservice.KubernetesClusterNodePool(
            part.name,
            name=node_pool_name(part.name),
            kubernetes_cluster_id=cluster.id,
            vm_size=pool.instance.name,
            node_labels=labels(nodes),
            # Azure puts one more taint on spot nodes by itself; `core/manifests/workload.py` tolerates it on a spot pool.
            node_taints=[f"{key}=present:NoSchedule" for key in taints(nodes)],
            zones=list(platform.network.zones) or None,
            opts=pulumi.ResourceOptions(parent=made),
            **size,
            **spot,
        )
    made.register_outputs({})
    return made


def store(platform: Platform, cluster: AksCluster, bucket: str) -> AksStore:
    """A storage account with one private container: versioned, encrypted by Azure's keys (always so), no shared keys, kept when the stack goes."""
    made = AksStore("aks", "store", pulumi.ResourceOptions(parent=cluster))
    account_name = re.sub(r"[^a-z0-9]", "", bucket)[:24]
    account = azure.storage.Account(
        "models",
        name=account_name,
        location=platform.region,
        resource_group_name=cluster.group,
        account_tier="Standard",
        account_replication_type="ZRS",
        https_traffic_only_enabled=True,
        min_tls_version="TLS1_2",
        allow_nested_items_to_be_public=False,
        shared_access_key_enabled=False,
        default_to_oauth_authentication=True,
        blob_properties=azure.storage.AccountBlobPropertiesArgs(
            versioning_enabled=True, delete_retention_policy=azure.storage.AccountBlobPropertiesDeleteRetentionPolicyArgs(days=KEPT_DAYS)
        ),
        opts=made.kept(),
    )
    version = azure.storage.ManagementPolicyRuleActionsVersionArgs(delete_after_days_since_creation=KEPT_DAYS)
    rule = azure.storage.ManagementPolicyRuleArgs(
        name="deployctl",
        enabled=True,
        actions=azure.storage.ManagementPolicyRuleActionsArgs(version=version),
        filters=azure.storage.ManagementPolicyRuleFiltersArgs(blob_types=["blockBlob"]),
    )
    azure.storage.ManagementPolicy("models", storage_account_id=account.id, rules=[rule], opts=made.kept())
    azure.storage.Container("models", name=bucket, storage_account_id=account.id, container_access_type="private", opts=made.kept())
    made.uri = f"az://{account_name}/{bucket}"
    made.register_outputs({"uri": made.uri})
    made.scope = account.id
    return made


def identity(platform: Platform, cluster: AksCluster, store: AksStore, reader: str) -> Identity:
    """Microsoft Entra Workload ID: a managed identity that trusts exactly one Kubernetes service account."""
    made = Identity("aks", reader, pulumi.ResourceOptions(parent=cluster))
    name = reader.replace("/", "-")
    options = pulumi.ResourceOptions(parent=made, depends_on=[store])
    managed = azure.authorization.UserAssignedIdentity(name, name=name, location=platform.region, resource_group_name=cluster.group, opts=options)
    azure.armmsi.FederatedIdentityCredential(
        name,
        name=name,
        user_assigned_identity_id=managed.id,
        issuer=cluster.issuer,
        subject=f"system:serviceaccount:{made.namespace}:{made.service_account}",
        audience="api://AzureADTokenExchange",
        opts=options,
    )
    azure.authorization.Assignment(
        name,
        scope=store.scope,
        role_definition_name="Storage Blob Data Reader",
        principal_id=managed.principal_id,
        principal_type="ServicePrincipal",
        opts=options,
    )
    made.annotations = {"azure.workload.identity/client-id": managed.client_id}
    made.register_outputs({})
    return made
