from fulfillment.access import ACCESS
from fulfillment.service import SERVICE_NAME
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as pb


def test_every_method_is_listed_and_no_other() -> None:
    methods = pb.DESCRIPTOR.services_by_name["FulfillmentService"].methods_by_name
    assert set(ACCESS) == set(methods)
    assert SERVICE_NAME == "keyferry.fulfillment.v1.FulfillmentService"


def test_only_the_edge_opens_keys_and_only_the_shop_tells_of_money() -> None:
    assert {name for name, callers in ACCESS.items() if callers == {"edge"}} == {"CreateDownloadLink", "RevealKey"}
    assert {name for name, callers in ACCESS.items() if callers == {"shop"}} == {"SubmitOrder", "ConfirmPayment"}
    assert frozenset().union(*ACCESS.values()) == {"edge", "shop"}
