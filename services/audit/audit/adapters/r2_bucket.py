"""Makes the bucket of checkpoints where it is missing. That nobody can empty it is for ops to do: see the README."""

from contextlib import closing

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from chassis.buckets import OURS_ALREADY, SERVER_ERROR, code_of, open_admin, status_of

from audit.errors import CheckpointStoreUnavailable

logger = structlog.get_logger(__name__)


def provision_bucket(*, endpoint: str, bucket: str, access_key_id: str, secret_access_key: str) -> None:
    """Make the bucket; doing it again changes nothing. Raises CheckpointStoreUnavailable.

    A token that may not make buckets is normal in production: it is told in the log, and what ops provisioned holds.
    """
    with closing(open_admin(endpoint, access_key_id, secret_access_key)) as client:
        try:
            client.create_bucket(Bucket=bucket)
        except ClientError as error:
            if status_of(error) >= SERVER_ERROR:
                raise CheckpointStoreUnavailable("the store of checkpoints does not answer") from error
            if code_of(error) not in OURS_ALREADY:
                logger.warning(
                    "the bucket of checkpoints could not be made, it must have been before", code=code_of(error)
                )
        except BotoCoreError as error:
            raise CheckpointStoreUnavailable("the store of checkpoints does not answer") from error
