"""Buckets of Cloudflare R2, or any store that speaks S3: obstore for objects, boto3 for what is done once at a start.

The text of a store's error may quote a signed URL. It is looked at here, and must never be passed on.
"""

from datetime import timedelta
from typing import TYPE_CHECKING

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from obstore.exceptions import NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# R2 answers within tens of milliseconds; a slow one is asked again by the caller, who sees the state.
CALL_SECONDS = 8.0
_ATTEMPT_SECONDS = 5
# R2 takes it for its own `auto`; other stores make no bucket in a region of that name.
REGION = "us-east-1"
NOT_FOUND = (NotFoundError, FileNotFoundError)
OURS_ALREADY = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
SERVER_ERROR = 500


def open_bucket(*, endpoint: str, bucket: str, access_key_id: str, secret_access_key: str) -> S3Store:
    """Return a bucket for objects. Nothing is asked of the store before the first call."""
    return S3Store(
        bucket,
        endpoint=endpoint,
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
        region="auto",
        virtual_hosted_style_request=False,
        conditional_put="etag",
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "timeout": f"{_ATTEMPT_SECONDS}s",
            "connect_timeout": "2s",
        },
        retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=CALL_SECONDS)},
    )


def open_admin(endpoint: str, access_key_id: str = "", secret_access_key: str = "") -> "S3Client":
    """Return a client that makes and checks buckets; without credentials it is nobody. Its calls block."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key_id or None,
        aws_secret_access_key=secret_access_key or None,
        region_name=REGION,
        config=Config(
            signature_version=None if access_key_id else UNSIGNED,
            connect_timeout=_ATTEMPT_SECONDS,
            read_timeout=_ATTEMPT_SECONDS,
            retries={"max_attempts": 2},
            # The checksums that AWS takes by default are not every store's.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        ),
    )


def is_missing(error: Exception) -> bool:
    """Tell whether S3 itself says that there is no such object. Another's 404 at this address decides nothing."""
    return "NoSuchKey" in str(error)


def is_refusal(error: Exception) -> bool:
    """Tell what waiting does not mend: no access, or no bucket."""
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        return True
    # Of several objects each is deleted with an answer of its own, in the body of a success.
    return any(code in str(error) for code in ("NoSuchBucket", "AccessDenied"))


def status_of(error: ClientError) -> int:
    """Return the HTTP status of what boto3 raised; 0 where there was none."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def code_of(error: ClientError) -> str:
    """Return S3's word for what boto3 raised, such as `NoSuchBucket`; empty where there was none."""
    return error.response.get("Error", {}).get("Code", "")
