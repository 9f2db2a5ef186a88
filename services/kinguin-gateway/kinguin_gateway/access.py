"""Who may call which method. What is absent may be called by nobody."""

from chassis.identity import AccessList

ACCESS: AccessList = {
    "PlaceOrder": frozenset({"fulfillment"}),
    "GetOrder": frozenset({"fulfillment", "shop"}),
    "CollectKeys": frozenset({"fulfillment"}),
    "GetProduct": frozenset({"edge", "fulfillment"}),
    "CheckSupplier": frozenset({"edge", "fulfillment"}),
}
