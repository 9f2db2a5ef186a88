"""Which identity may call which method."""

from chassis.identity import AccessList

ACCESS: AccessList = {
    "SealKey": frozenset({"kinguin-gateway"}),
    "CreateDownloadLink": frozenset({"fulfillment"}),
    "RevealKey": frozenset({"fulfillment"}),
}
