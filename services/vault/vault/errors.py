"""The reasons of vault. What customer and operator do on each is told in docs/errors.md."""

import grpc
from chassis.errors import KeyferryError


class SourceRefConflict(KeyferryError):
    """Another game key was sealed under this source reference; nothing was stored."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "SOURCE_REF_CONFLICT"


class KeyNotFound(KeyferryError):
    """No such key, or not this order's, or not this customer's: one answer for all three."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "KEY_NOT_FOUND"


class KeyNotReady(KeyferryError):
    """The key is its owner's, but cannot be opened: it is being sealed, or kept for a human."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "KEY_NOT_READY"


class KeyRevoked(KeyferryError):
    """The key was taken back, or destroyed, before it was opened: it is never handed over."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "KEY_REVOKED"


class KeyExpired(KeyferryError):
    """The key's retention has passed, and it was destroyed: nobody can open it any more."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "KEY_EXPIRED"


class ReleaseLimit(KeyferryError):
    """The key was handed over too often within an hour; this time it was not."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RELEASE_LIMIT"


class KeysUnopened(KeyferryError):
    """A customer who is to be forgotten has keys that they paid for and never opened; nothing was changed."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "KEYS_UNOPENED"


class KeyOpened(KeyferryError):
    """The key was opened by its owner, so that it cannot be taken back; nothing was changed."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "KEY_OPENED"


class KeyNotRevoked(KeyferryError):
    """The key can still be opened, or still be sealed: it must be revoked before it is destroyed."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "KEY_NOT_REVOKED"


class UploadUnreadable(KeyferryError):
    """An uploaded key does not open: it is no JWE of ours, or to no upload key of ours. Why exactly is not told."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "UPLOAD_UNREADABLE"


class UploadMismatch(KeyferryError):
    """An uploaded key was made for another order, line or request; nothing was stored."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "UPLOAD_MISMATCH"


class LinkExpired(KeyferryError):
    """The request's first answer has expired; a fresh request gets a fresh link."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "LINK_EXPIRED"


class KeyCorrupted(KeyferryError):
    """A stored key does not open: its object, its wrapped DEK or its binding was changed. Never retried."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "KEY_CORRUPTED"


class SecretVersionMissing(KeyferryError):
    """The key is under a version of a secret that this replica does not have; nothing was decided."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "SECRET_VERSION_MISSING"


class ObjectStoreUnavailable(KeyferryError):
    """The object store does not answer; nothing was decided."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "OBJECT_STORE_UNAVAILABLE"


class ObjectStoreRefused(ObjectStoreUnavailable):
    """The object store does not let us in, or has no such bucket; nothing was decided, and a person has to mend it.

    As code it is UNAVAILABLE too: once it is mended, whoever waits goes on by itself.
    """

    reason = "OBJECT_STORE_REFUSED"


class BucketUnfit(KeyferryError):
    """The bucket does not do what vault needs. It stops the start: the message names the setting and what to do."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "BUCKET_UNFIT"


class AuditUnavailable(KeyferryError):
    """The audit log does not answer: no audit, no reveal."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "AUDIT_UNAVAILABLE"


class KeyEncryptionUnavailable(KeyferryError):
    """Who holds the KEKs does not answer, or does not let us in; nothing was decided."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "KEY_ENCRYPTION_UNAVAILABLE"


class KekNotActive(KeyferryError):
    """The version to which DEKs were to be moved is not the active one of this replica; nothing was moved."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "KEK_NOT_ACTIVE"


class RewrapRunning(KeyferryError):
    """This replica rewraps already, for another call; nothing was begun."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "REWRAP_RUNNING"
