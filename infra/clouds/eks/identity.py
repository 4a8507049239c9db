"""EKS Pod Identity: a role that one service account of one namespace gets, for reading one bucket."""

from __future__ import annotations

import json

import pulumi
import pulumi_aws as aws

from deployctl.core.platform import Platform
from infra.clouds.eks.cluster import trust
from infra.components.cluster import Cluster
from infra.components.identity import Identity
from infra.components.store import ModelStore


def identity(platform: Platform, cluster: Cluster, store: ModelStore, reader: str) -> Identity:
    """Make role, right and association. The ServiceAccount needs no annotation."""
    made = Identity("eks", reader, pulumi.ResourceOptions(parent=cluster))
    options = pulumi.ResourceOptions(parent=made, depends_on=[cluster.provider])
    name = reader.replace("/", "-")
    arn = f"arn:aws:s3:::{platform.bucket}"
    role = aws.iam.Role(name, assume_role_policy=trust("pods.eks.amazonaws.com", ["sts:AssumeRole", "sts:TagSession"]), opts=options)
    rights = [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{arn}/*"]},
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [arn]},
    ]
    aws.iam.RolePolicy(name, role=role.id, policy=json.dumps({"Version": "2012-10-17", "Statement": rights}), opts=options)
    aws.eks.PodIdentityAssociation(
        name,
        cluster_name=platform.name,
        namespace=made.namespace,
        service_account=made.service_account,
        role_arn=role.arn,
        opts=options,
    )
    made.register_outputs({})
    return made
