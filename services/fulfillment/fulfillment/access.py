"""Which identity may call which method."""

from chassis.identity import AccessList

ACCESS: AccessList = {
    "SubmitOrder": frozenset({"shop"}),
    "ConfirmPayment": frozenset({"shop"}),
    "GetFulfillment": frozenset({"edge", "shop"}),
    "ListFulfillments": frozenset({"edge", "shop"}),
    "WatchFulfillment": frozenset({"edge", "shop"}),
    "CreateDownloadLink": frozenset({"edge"}),
    "RevealKey": frozenset({"edge"}),
}
