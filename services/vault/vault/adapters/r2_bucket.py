"""Provisions the bucket at start: there, private, and readable by the page's origin over a presigned URL."""

from typing import TYPE_CHECKING

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from vault.errors import ObjectStoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CORSConfigurationTypeDef

logger = structlog.get_logger(__name__)

CALL_SECONDS = 5
_OURS_ALREADY = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists", "409"})


def provision_bucket(*, endpoint: str, bucket: str, access_key_id: str, secret_access_key: str, origin: str) -> None:
    """Make the bucket and its CORS rule; doing it again changes nothing. Raises ObjectStoreUnavailable.

    A token that may not administer buckets is normal in production: it is told in the log, and what ops provisioned
    holds.
    """
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        region_name="auto",
        config=Config(
            connect_timeout=CALL_SECONDS,
            read_timeout=CALL_SECONDS,
            retries={"max_attempts": 2},
            s3={"addressing_style": "path"},
        ),
    )
    cors: CORSConfigurationTypeDef = {
        "CORSRules": [
            {"AllowedOrigins": [origin], "AllowedMethods": ["GET"], "AllowedHeaders": ["*"], "MaxAgeSeconds": 3600}
        ]
    }
    try:
        _attempt("bucket", lambda: client.create_bucket(Bucket=bucket))
        _attempt("cors", lambda: client.put_bucket_cors(Bucket=bucket, CORSConfiguration=cors))
    except BotoCoreError as error:
        raise ObjectStoreUnavailable("the object store does not answer") from error
    finally:
        client.close()


def _attempt(what: str, call: object) -> None:
    try:
        call()  # type: ignore[operator] # a closure over a boto3 client
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code not in _OURS_ALREADY:
            logger.warning("the bucket could not be provisioned, it must have been before", what=what, code=code)
