"""What vault counts."""

from prometheus_client import Counter, Gauge

KEYS_SEALED = Counter("keyferry_vault_keys_sealed_total", "Keys sealed, by whether they are sealed or held.", ["state"])
RELEASES = Counter(
    "keyferry_vault_releases_total",
    "Keys asked for by customers: released, denied, limited or failed.",
    ["way", "outcome"],
)
KEYS_TAKEN_BACK = Counter("keyferry_vault_keys_taken_back_total", "Keys revoked, shredded and expired.", ["how"])
CORRUPTED = Counter("keyferry_vault_corrupted_total", "Stored keys that did not open. Any is an alert.")
KEYS_PER_KEK = Gauge(
    "keyferry_vault_keys_per_kek",
    "Keys wrapped under each version of the KEK, as last counted. A version is retired only at 0.",
    ["kek_version"],
)
REWRAPPED = Counter(
    "keyferry_vault_rewrapped_total", "DEKs moved to the active KEK, or found not to open.", ["outcome"]
)
TRANSIT_CALLS = Counter(
    "keyferry_vault_transit_calls_total",
    "Calls of Transit: answered, refused, or made again.",
    ["operation", "outcome"],
)
OBJECT_STORE_FAILURES = Counter(
    "keyferry_vault_object_store_failures_total",
    "Calls of the object store that failed, by call and by kind: refused (an alert), unavailable or timeout.",
    ["call", "kind"],
)
OBJECTS_LEFT = Gauge("keyferry_vault_objects_left", "Objects of destroyed keys that are still to be deleted.")
OBJECTS_LEFT_AGE = Gauge(
    "keyferry_vault_objects_left_age_seconds", "For how long the object of a destroyed key has been left at most."
)
UNUSUAL = Counter("keyferry_vault_unusual_accesses_total", "Accesses of which something was new for their owner.")
