"""The reasons of the log. What customer and operator do on each is told in docs/errors.md."""

import grpc
from chassis.errors import KeyferryError


class LogInconsistent(KeyferryError):
    """The log does not continue what was published of it: it was cut or changed. Nothing is signed."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "LOG_INCONSISTENT"


class TreeDamaged(KeyferryError):
    """A hash of the stored tree is missing, so that neither a proof nor a checkpoint can be made of it."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "TREE_DAMAGED"


class TreeTooSmall(KeyferryError):
    """The log has fewer entries than the tree that was asked about."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "TREE_TOO_SMALL"


class CheckpointStoreUnavailable(KeyferryError):
    """The store of checkpoints does not answer; what was published cannot be compared with."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "CHECKPOINT_STORE_UNAVAILABLE"


class VerificationRunning(KeyferryError):
    """This replica verifies the log for somebody else already; one at a time, so that appends do not wait for it."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "VERIFICATION_RUNNING"
