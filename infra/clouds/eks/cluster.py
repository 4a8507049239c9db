"""The EKS cluster in Auto Mode, its network and its two roles."""

from __future__ import annotations

import json

import pulumi
import pulumi_aws as aws

from deployctl.core.platform import Platform
from infra.clouds.eks.network import vpc
from infra.components.cluster import Cluster, kubeconfig

_POLICY = "arn:aws:iam::aws:policy"
# What Auto Mode asks for: https://docs.aws.amazon.com/eks/latest/userguide/auto-cluster-iam-role.html and auto-create-node-role.html
_CLUSTER_POLICIES = (
    "AmazonEKSClusterPolicy",
    "AmazonEKSComputePolicy",
    "AmazonEKSBlockStoragePolicy",
    "AmazonEKSLoadBalancingPolicy",
    "AmazonEKSNetworkingPolicy",
)
_NODE_POLICIES = ("AmazonEKSWorkerNodeMinimalPolicy", "AmazonEC2ContainerRegistryPullOnly")


def cluster(platform: Platform) -> Cluster:
    """Make network, roles and cluster. Only the roles of AWS's own services are used; nodes hold no rights on models."""
    tags = aws.ProviderDefaultTagsArgs(tags={"deployctl/platform": platform.name})
    made = Cluster("eks", platform.name, aws.Provider("aws", region=platform.region, default_tags=tags))
    options = pulumi.ResourceOptions(parent=made)
    net = vpc(platform, options)
    role, attached = _role("cluster", "eks.amazonaws.com", ["sts:AssumeRole", "sts:TagSession"], _CLUSTER_POLICIES, options)
    node_role, node_attached = _role("node", "ec2.amazonaws.com", ["sts:AssumeRole"], _NODE_POLICIES, options)
    eks = aws.eks.Cluster(
        "cluster",
        name=platform.name,
        version=platform.version,
        role_arn=role.arn,
        bootstrap_self_managed_addons=False,
        access_config=aws.eks.ClusterAccessConfigArgs(authentication_mode="API", bootstrap_cluster_creator_admin_permissions=True),
        compute_config=aws.eks.ClusterComputeConfigArgs(enabled=True, node_pools=["system"], node_role_arn=node_role.arn),
        kubernetes_network_config=aws.eks.ClusterKubernetesNetworkConfigArgs(
            elastic_load_balancing=aws.eks.ClusterKubernetesNetworkConfigElasticLoadBalancingArgs(enabled=True)
        ),
        storage_config=aws.eks.ClusterStorageConfigArgs(block_storage=aws.eks.ClusterStorageConfigBlockStorageArgs(enabled=True)),
        vpc_config=aws.eks.ClusterVpcConfigArgs(subnet_ids=[*net.private, *net.public], endpoint_private_access=True, endpoint_public_access=True),
        enabled_cluster_log_types=["api", "audit", "authenticator"],
        opts=pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=[*attached, *node_attached])),
    )
    arguments = ["eks", "get-token", "--region", platform.region or "", "--cluster-name", platform.name]
    text = pulumi.Output.all(eks.endpoint, eks.certificate_authority).apply(
        lambda found: kubeconfig(platform.name, found[0], found[1]["data"], "aws", arguments)
    )
    made.reach(text, [eks])
    made.connect = f"aws eks update-kubeconfig --region {platform.region} --name {platform.name} --alias {platform.context}"
    made.register_outputs({"connect": made.connect})
    return made


def _role(
    name: str, service: str, actions: list[str], policies: tuple[str, ...], options: pulumi.ResourceOptions
) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
    role = aws.iam.Role(name, assume_role_policy=trust(service, actions), opts=options)
    return role, [
        aws.iam.RolePolicyAttachment(f"{name}-{policy}", role=role.name, policy_arn=f"{_POLICY}/{policy}", opts=options) for policy in policies
    ]


def trust(service: str, actions: list[str], condition: dict[str, dict[str, str]] | None = None) -> str:
    """A trust policy for one AWS service."""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": actions, **({"Condition": condition} if condition else {})}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
