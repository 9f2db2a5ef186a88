"""What the log counts."""

from prometheus_client import Counter, Gauge

CHECKPOINT_AGE = Gauge(
    "keyferry_audit_checkpoint_age_seconds",
    "Seconds since the whole log was last seen under a published checkpoint; grows while none can be published.",
)
CHECKPOINTS_PUBLISHED = Counter("keyferry_audit_checkpoints_published_total", "Checkpoints published by this replica.")
LOG_INCONSISTENT = Gauge(
    "keyferry_audit_log_inconsistent",
    "1 while the log does not continue its last published checkpoint. Any is an alert: nothing is signed.",
)
TREE_DAMAGED = Gauge("keyferry_audit_tree_damaged", "1 while a hash of the stored tree is missing. Any is an alert.")
VERIFICATIONS = Counter(
    "keyferry_audit_verifications_total", "Walks through the whole log, by what they found.", ["finding"]
)
