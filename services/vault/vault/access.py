"""Which identity may call which method."""

from chassis.identity import AccessList

ACCESS: AccessList = {
    "SealKey": frozenset({"kinguin-gateway", "fulfillment"}),
    "CreateDownloadLink": frozenset({"fulfillment"}),
    "RevealKey": frozenset({"fulfillment"}),
    "GetUploadKey": frozenset({"fulfillment"}),
    "RevokeKeys": frozenset({"fulfillment"}),
    "ShredKey": frozenset({"fulfillment"}),
    "GetKey": frozenset({"fulfillment"}),
    "ListKeys": frozenset({"fulfillment"}),
    "RewrapKeys": frozenset({"operator"}),
    "GetDeliveryLog": frozenset({"fulfillment"}),
    "SweepExpired": frozenset({"fulfillment"}),
    "EraseCustomer": frozenset({"fulfillment"}),
}

# The one field of SealKey in which each of its callers hands over a key. Fulfillment never sees a plain one, so one
# that comes from it is a mistake or worse.
KEY_FIELDS = {"kinguin-gateway": "plaintext_key", "fulfillment": "key_jwe"}
