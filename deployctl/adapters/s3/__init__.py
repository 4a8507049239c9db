"""Amazon S3 and what speaks its protocol: the ObjectStore of `s3://` addresses."""

from deployctl.adapters.s3.objects import S3Objects

__all__ = ["S3Objects"]
