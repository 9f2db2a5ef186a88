"""Who may call which method. What is absent may be called by nobody."""

from chassis.identity import AccessList

ACCESS: AccessList = {
    "AppendEntry": frozenset({"edge", "fulfillment", "kinguin-gateway", "vault"}),
    "EraseCustomer": frozenset({"edge", "fulfillment", "shop"}),
    "ExportEntries": frozenset({"edge", "shop"}),
    "ListEntries": frozenset({"edge", "shop"}),
    "GetCheckpoint": frozenset({"edge", "shop"}),
    "GetInclusionProof": frozenset({"edge", "shop"}),
    "GetConsistencyProof": frozenset({"edge", "shop"}),
    "VerifyLog": frozenset({"edge", "shop"}),
}
