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
    "RefundPayment": frozenset({"shop"}),
    "CancelFulfillment": frozenset({"edge", "shop"}),
    "ListPayments": frozenset({"edge"}),
    "GetPayment": frozenset({"edge"}),
    "RetryFulfillment": frozenset({"edge"}),
    "RetryFulfillments": frozenset({"edge"}),
    "AssignPayment": frozenset({"edge"}),
    "ClosePayment": frozenset({"edge"}),
    "DeliverKeyManually": frozenset({"edge"}),
    "GetUploadKey": frozenset({"edge"}),
    "ReplaceKey": frozenset({"edge"}),
    "ResendDeliveryEmail": frozenset({"edge"}),
    "ReconcilePayments": frozenset({"edge"}),
    "ListReports": frozenset({"edge"}),
    "GetReport": frozenset({"edge"}),
    "ListDifferences": frozenset({"edge"}),
    "ExportReport": frozenset({"edge"}),
    "ListDeadLetters": frozenset({"edge"}),
    "ReplayDeadLetter": frozenset({"edge"}),
    "ResumeConsumer": frozenset({"edge"}),
}
