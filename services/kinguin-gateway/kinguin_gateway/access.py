"""Who may call which method. What is absent may be called by nobody."""

from chassis.identity import AccessList

ACCESS: AccessList = {
    "PlaceOrder": frozenset({"fulfillment"}),
    "WithdrawPurchase": frozenset({"fulfillment"}),
    "GetOrder": frozenset({"fulfillment", "shop"}),
    "CollectKeys": frozenset({"fulfillment"}),
    "ListPurchases": frozenset({"edge", "fulfillment"}),
    "SearchOrders": frozenset({"edge", "fulfillment"}),
    "ReturnKeys": frozenset({"edge", "fulfillment"}),
    "GetProduct": frozenset({"edge", "fulfillment", "shop"}),
    "GetBalance": frozenset({"edge", "fulfillment"}),
    "RecordTopUp": frozenset({"edge"}),
    "ListTopUps": frozenset({"edge", "fulfillment"}),
    "CheckSupplier": frozenset({"edge", "fulfillment"}),
    "PauseBuying": frozenset({"edge"}),
    "ResumeBuying": frozenset({"edge"}),
    "ListWebhooks": frozenset({"edge"}),
    "ReplayWebhook": frozenset({"edge"}),
}
