"""An S3 bucket for models."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from deployctl.core.platform import Platform
from infra.components.cluster import Cluster
from infra.components.store import KEPT_DAYS, UNFINISHED_DAYS, ModelStore


def store(platform: Platform, cluster: Cluster, bucket: str) -> ModelStore:
    """Make the bucket: versioned, encrypted, never public, kept when the stack goes."""
    made = ModelStore("eks", "store", pulumi.ResourceOptions(parent=cluster))
    holder = aws.s3.Bucket("models", bucket=bucket, opts=made.kept())
    options = made.kept()
    aws.s3.BucketPublicAccessBlock(
        "models",
        bucket=holder.id,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=options,
    )
    versioned = aws.s3.BucketVersioning(
        "models", bucket=holder.id, versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"), opts=options
    )
    encryption = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(sse_algorithm="AES256")
    rule = aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(apply_server_side_encryption_by_default=encryption)
    aws.s3.BucketServerSideEncryptionConfiguration("models", bucket=holder.id, rules=[rule], opts=options)
    aws.s3.BucketLifecycleConfiguration(
        "models",
        bucket=holder.id,
        rules=[
            aws.s3.BucketLifecycleConfigurationRuleArgs(
                id="deployctl",
                status="Enabled",
                filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                noncurrent_version_expiration=aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(noncurrent_days=KEPT_DAYS),
                abort_incomplete_multipart_upload=aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                    days_after_initiation=UNFINISHED_DAYS
                ),
            )
        ],
        opts=pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=[versioned])),
    )
    made.uri = f"s3://{bucket}"
    made.register_outputs({"uri": made.uri})
    return made
