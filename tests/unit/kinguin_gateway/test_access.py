from keyferry.kinguin.v1 import kinguin_service_pb2
from kinguin_gateway.access import ACCESS


def test_every_method_of_the_contract_says_who_may_call_it() -> None:
    service = kinguin_service_pb2.DESCRIPTOR.services_by_name["KinguinService"]
    assert ACCESS.keys() == set(service.methods_by_name)


def test_only_fulfillment_spends_money_and_has_keys_sealed() -> None:
    assert ACCESS["PlaceOrder"] == ACCESS["WithdrawPurchase"] == ACCESS["CollectKeys"] == {"fulfillment"}


def test_fulfillment_may_call_what_refunds_and_reconciliation_need() -> None:
    needed = ["ListPurchases", "SearchOrders", "ListTopUps", "ReturnKeys", "GetBalance", "GetProduct", "CheckSupplier"]
    assert all("fulfillment" in ACCESS[method] for method in needed)
    # What a person has done at the supplier only a person tells.
    assert ACCESS["RecordTopUp"] == {"edge"}
