"""Checkpoints and the progress of a verification to their proto messages."""

from collections.abc import Sequence

from keyferry.audit.v1 import audit_service_pb2 as pb

from audit.checkpointing import SignedCheckpoint
from audit.verifying import Finding, Progress, Verdict

_FINDING_TO_PROTO = {
    Finding.SOUND: pb.LogVerdict.FINDING_SOUND,
    Finding.ENTRY_MISSING: pb.LogVerdict.FINDING_ENTRY_MISSING,
    Finding.ENTRY_CHANGED: pb.LogVerdict.FINDING_ENTRY_CHANGED,
    Finding.HASH_CHANGED: pb.LogVerdict.FINDING_HASH_CHANGED,
    Finding.CHECKPOINT_MISMATCH: pb.LogVerdict.FINDING_CHECKPOINT_MISMATCH,
    Finding.CHECKPOINT_UNPROVEN: pb.LogVerdict.FINDING_CHECKPOINT_UNPROVEN,
    Finding.LOG_TRUNCATED: pb.LogVerdict.FINDING_LOG_TRUNCATED,
}


def checkpoint_to_proto(signed: SignedCheckpoint, verifier_keys: Sequence[str]) -> pb.GetCheckpointResponse:
    """Render a signed checkpoint."""
    return pb.GetCheckpointResponse(
        note=signed.note,
        tree_size=signed.checkpoint.size,
        root_hash=signed.checkpoint.root,
        verifier_keys=verifier_keys,
    )


def progress_to_proto(progress: Progress) -> pb.VerifyLogResponse:
    """Render how far a walk is and, at its end, what it came to."""
    return pb.VerifyLogResponse(
        verified_entries=progress.entries,
        tree_size=progress.size,
        compared_checkpoints=progress.checkpoints,
        verdict=_verdict_to_proto(progress.verdict, progress.root) if progress.verdict else None,
    )


def _verdict_to_proto(verdict: Verdict, root: bytes) -> pb.LogVerdict:
    return pb.LogVerdict(
        finding=_FINDING_TO_PROTO[verdict.finding],
        bad_sequence=verdict.bad_sequence,
        checkpoint_size=verdict.checkpoint_size,
        root_hash=root,
    )
