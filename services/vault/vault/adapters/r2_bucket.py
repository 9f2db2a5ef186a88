"""Provisions the bucket at start: there, private, readable by the page over presigned URLs, and never expiring."""

from typing import TYPE_CHECKING

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from vault.errors import ObjectStoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import BucketLifecycleConfigurationTypeDef, CORSConfigurationTypeDef

logger = structlog.get_logger(__name__)

CALL_SECONDS = 5
# R2 takes it for its own `auto`; other stores make no bucket in a region of that name.
REGION = "us-east-1"
_OURS_ALREADY = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_SERVER_ERROR = 500
# The whole of it, in place of whatever is there: a rule that expires objects would destroy keys that were paid for.
LIFECYCLE: "BucketLifecycleConfigurationTypeDef" = {
    "Rules": [
        {
            "ID": "abort-unfinished-uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        }
    ]
}


def provision_bucket(*, endpoint: str, bucket: str, access_key_id: str, secret_access_key: str, origin: str) -> None:
    """Make the bucket, its CORS rule and its lifecycle; doing it again changes nothing. Raises ObjectStoreUnavailable.

    Buckets are private unless somebody opens them. A token that may not administer buckets is normal in production:
    it is told in the log, and what ops provisioned holds.
    """
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        region_name=REGION,
        config=Config(
            connect_timeout=CALL_SECONDS,
            read_timeout=CALL_SECONDS,
            retries={"max_attempts": 2},
            s3={"addressing_style": "path"},
        ),
    )
    try:
        _provision(client, bucket, origin)
    except BotoCoreError as error:
        raise ObjectStoreUnavailable("the object store does not answer") from error
    finally:
        client.close()


def _provision(client: "S3Client", bucket: str, origin: str) -> None:
    # A GET without headers of its own needs no preflight and no allowed header.
    cors: CORSConfigurationTypeDef = {
        "CORSRules": [{"AllowedOrigins": [origin], "AllowedMethods": ["GET"], "MaxAgeSeconds": 3600}]
    }
    steps: dict[str, Callable[[], object]] = {
        "bucket": lambda: client.create_bucket(Bucket=bucket),
        "cors": lambda: client.put_bucket_cors(Bucket=bucket, CORSConfiguration=cors),
        "lifecycle": lambda: client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=LIFECYCLE),
    }
    for what, step in steps.items():
        try:
            step()
        except ClientError as error:
            _judge(what, error)


def _judge(what: str, error: ClientError) -> None:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _OURS_ALREADY:
        return
    # Not every store has every feature; one that has none of them at the moment is asked again after a restart.
    if status >= _SERVER_ERROR and code != "NotImplemented":
        raise ObjectStoreUnavailable("the object store does not answer") from error
    logger.warning("the bucket could not be provisioned, it must have been before", what=what, code=code)
