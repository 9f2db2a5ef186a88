"""Makes the bucket of checkpoints where it is missing. That nobody can empty it is for ops to do: see the README."""

from typing import TYPE_CHECKING

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from audit.errors import CheckpointStoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = structlog.get_logger(__name__)

CALL_SECONDS = 5
# R2 takes it for its own `auto`; other stores make no bucket in a region of that name.
REGION = "us-east-1"
_OURS_ALREADY = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_SERVER_ERROR = 500


def provision_bucket(*, endpoint: str, bucket: str, access_key_id: str, secret_access_key: str) -> None:
    """Make the bucket; doing it again changes nothing. Raises CheckpointStoreUnavailable.

    A token that may not make buckets is normal in production: it is told in the log, and what ops provisioned holds.
    """
    client: S3Client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        region_name=REGION,
        config=Config(
            connect_timeout=CALL_SECONDS,
            read_timeout=CALL_SECONDS,
            retries={"max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )
    try:
        client.create_bucket(Bucket=bucket)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= _SERVER_ERROR:
            raise CheckpointStoreUnavailable("the store of checkpoints does not answer") from error
        if code not in _OURS_ALREADY:
            logger.warning("the bucket of checkpoints could not be made, it must have been before", code=code)
    except BotoCoreError as error:
        raise CheckpointStoreUnavailable("the store of checkpoints does not answer") from error
    finally:
        client.close()
