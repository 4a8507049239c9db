"""What S3 and botocore say, as errors that a person can act on: what enters is their exception, what leaves is ours.

Refuses to know what was being done beyond the words that it is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from botocore import exceptions as boto

from deployctl.errors import CloudError, DeployctlError

AUTH = 3  # exit code, design section 4
_AGAIN = "then repeat the command: what was sent already is not sent again"

# S3's code -> (our code, what, next step, exit code)
_BY_CODE: dict[str, tuple[str, str, str, int]] = {}
for _codes, _row in {
    ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"): (
        "store-expired",
        "your credentials for the store have expired",
        f"log in again (for example aws sso login), {_AGAIN}",
        AUTH,
    ),
    ("AccessDenied", "403", "Forbidden", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"): (
        "store-denied",
        "the store refuses you",
        f"give this identity the rights that docs/guides/store.md lists, or use another one (AWS_PROFILE), {_AGAIN}",
        AUTH,
    ),
    ("NoSuchBucket",): ("store-missing-bucket", "the bucket does not exist", "make the bucket, or correct `store:` in deploy.yaml", 4),
    ("SlowDown", "503", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded", "429", "TooManyRequestsException"): (
        "store-throttled",
        "the store is too busy",
        f"wait a little, {_AGAIN}",
        4,
    ),
    ("InternalError", "500", "502", "504", "RequestTimeout"): ("store-unreachable", "the store fails", f"wait a little, {_AGAIN}", 4),
    ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"): (
        "store-damaged",
        "content arrived changed, each time it was sent",
        "look for a proxy between here and the store that changes bodies, then repeat the command",
        4,
    ),
    ("RequestTimeTooSkewed",): ("store-clock", "this machine's clock is wrong", "set the clock, then repeat the command", 4),
    ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "TemporaryRedirect"): (
        "store-region",
        "the bucket lies in another region",
        "name it: `store_region:` of the environment, or AWS_REGION",
        4,
    ),
    ("NotImplemented", "501"): (
        "store-unsupported",
        "the store cannot do what shared records need",
        "use a store with conditional writes (If-None-Match and If-Match), as Amazon S3 has them",
        4,
    ),
}.items():
    _BY_CODE |= dict.fromkeys(_codes, _row)

_NO_IDENTITY = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.ProfileNotFound,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.UnauthorizedSSOTokenError,
)


def code_of(error: boto.ClientError) -> str:
    """S3's own code, or the status where an answer without a body has none."""
    return str(error.response.get("Error", {}).get("Code", "")) or str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


@contextlib.contextmanager
def explained(what: str, address: str) -> Iterator[None]:
    """Turn whatever S3 or botocore raises inside into an error of our tree, cause chained.

    Args:
        what: the act, such as `writing blobs/sha256/ab/cd…`.
        address: the store, for `where`.
    """
    try:
        yield
    except boto.ClientError as error:
        raise _refused(error, what, address) from error
    except _NO_IDENTITY as error:
        raise CloudError(
            "there are no usable credentials for the store",
            why=f"{what}: {error}",
            where=address,
            hint="log in (for example aws sso login), or set AWS_PROFILE; deployctl keeps no keys of its own",
            code="store-no-credentials",
            exit_code=AUTH,
        ) from error
    except boto.FlexibleChecksumError as error:
        raise damaged(what, address, str(error)) from error
    except boto.BotoCoreError as error:
        raise CloudError(
            "the store cannot be reached",
            why=f"{what}: {error}",
            where=address,
            hint=f"check the network and `store:` and `store_endpoint:` in deploy.yaml, {_AGAIN}",
            code="store-unreachable",
        ) from error


def damaged(what: str, address: str, why: str) -> CloudError:
    """Content that is not what its name or checksum promises."""
    return CloudError(
        "the store gives content that is not what its name promises",
        why=f"{what}: {why}",
        where=address,
        hint="deployctl package --push --force   (sends every file again; --lock ENV names the environment)",
        code="store-damaged",
    )


def _refused(error: boto.ClientError, what: str, address: str) -> DeployctlError:
    said = error.response.get("Error", {}).get("Message") or ""
    code, message, hint, exit_code = _BY_CODE.get(
        code_of(error), ("store-refused", "the store refuses the request", "see the reason above; `deployctl explain store-refused`", 4)
    )
    why = f"{what}: {error.operation_name} answered {code_of(error)} {said}".rstrip()
    return CloudError(message, why=why, where=address, hint=hint, code=code, exit_code=exit_code)
