"""Provisions the bucket at start: there, private, readable by the page over presigned URLs, and never expiring.

Then it is checked, because what cannot be provisioned was provisioned by somebody else.
"""

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from chassis.buckets import OURS_ALREADY, SERVER_ERROR, code_of, open_admin, status_of

from vault.errors import BucketUnfit, ObjectStoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import BucketLifecycleConfigurationTypeDef, CORSConfigurationTypeDef

logger = structlog.get_logger(__name__)

_TOO_MANY = 429
# A conditional put that finds an object; and one that finds another put under way.
_EXISTS = frozenset({412, 409})
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
    with closing(open_admin(endpoint, access_key_id, secret_access_key)) as client:
        try:
            _provision(client, bucket, origin)
        except BotoCoreError as error:
            raise ObjectStoreUnavailable("the object store does not answer") from error


def check_bucket(*, endpoint: str, bucket: str, access_key_id: str, secret_access_key: str) -> None:
    """See that the bucket does what vault needs: write once, read, delete, and tell a stranger nothing.

    Raises ObjectStoreUnavailable when the store does not answer, and BucketUnfit with what is wrong and what to do.
    """
    name, content = f"checks/{uuid.uuid4().hex}", b"written at a start of vault, and deleted at once"
    with closing(open_admin(endpoint, access_key_id, secret_access_key)) as client:
        try:
            _check(client, bucket, name, content)
            _check_private(endpoint, bucket, name)
            with _needed("delete objects", bucket):
                client.delete_object(Bucket=bucket, Key=name)
        except BotoCoreError as error:
            raise ObjectStoreUnavailable("the object store does not answer") from error
        except BucketUnfit:
            # A name is used once, so that one that cannot be deleted either is in nobody's way.
            with suppress(BotoCoreError, ClientError):
                client.delete_object(Bucket=bucket, Key=name)
            raise


def _check(client: "S3Client", bucket: str, name: str, content: bytes) -> None:
    def once() -> None:
        client.put_object(Bucket=bucket, Key=name, Body=content, IfNoneMatch="*")

    with _needed("write objects", bucket):
        once()
    try:
        once()
    except ClientError as error:
        # R2 lets one name be written once in a second, and may say so instead.
        if status_of(error) not in {*_EXISTS, _TOO_MANY}:
            raise _unfit("take a conditional put", bucket, error) from error
    else:
        raise BucketUnfit(f"R2_BUCKET: {bucket} ignores If-None-Match, so that keys could be overwritten")
    with _needed("read objects", bucket):
        stored = client.get_object(Bucket=bucket, Key=name)["Body"].read()
    if stored != content:
        raise BucketUnfit(f"R2_BUCKET: {bucket} gives back something else than was stored")


def _check_private(endpoint: str, bucket: str, name: str) -> None:
    """Read as nobody. R2 never answers a stranger here: whether it has a public address too only its dashboard says."""
    with closing(open_admin(endpoint)) as nobody:
        try:
            nobody.get_object(Bucket=bucket, Key=name)
        except ClientError:
            return
    raise BucketUnfit(f"R2_BUCKET: {bucket} is public: whoever knows a name reads it; take its public access away")


@contextmanager
def _needed(what: str, bucket: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _unfit(what, bucket, error) from error


def _unfit(what: str, bucket: str, error: ClientError) -> ObjectStoreUnavailable | BucketUnfit:
    if status_of(error) >= SERVER_ERROR or status_of(error) == _TOO_MANY:
        return ObjectStoreUnavailable("the object store does not answer")
    code = code_of(error)
    if code == "NoSuchBucket":
        return BucketUnfit(f"R2_BUCKET: there is no bucket {bucket}, and R2_ACCESS_KEY_ID may not make it; make it")
    return BucketUnfit(f"R2_ACCESS_KEY_ID: may not {what} in the bucket {bucket} (the store says {code})")


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
    code = code_of(error)
    if code in OURS_ALREADY:
        return
    # Not every store has every feature; one that has none of them at the moment is asked again after a restart.
    if status_of(error) >= SERVER_ERROR and code != "NotImplemented":
        raise ObjectStoreUnavailable("the object store does not answer") from error
    logger.warning("the bucket could not be provisioned, it must have been before", what=what, code=code)
