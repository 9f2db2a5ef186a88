"""What vault counts."""

from prometheus_client import Counter

KEYS_SEALED = Counter("keyferry_vault_keys_sealed_total", "Keys sealed, by whether they are sealed or held.", ["state"])
RELEASES = Counter(
    "keyferry_vault_releases_total", "Keys asked for by customers: released, denied or failed.", ["way", "outcome"]
)
KEYS_TAKEN_BACK = Counter("keyferry_vault_keys_taken_back_total", "Keys revoked, and keys shredded.", ["how"])
CORRUPTED = Counter("keyferry_vault_corrupted_total", "Stored keys that did not open. Any is an alert.")
