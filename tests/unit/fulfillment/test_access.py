from fulfillment.access import ACCESS
from fulfillment.service import SERVICE_NAME
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as admin_pb
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as pb

METHODS = set(pb.DESCRIPTOR.services_by_name["FulfillmentService"].methods_by_name)
ADMIN_METHODS = set(admin_pb.DESCRIPTOR.services_by_name["FulfillmentAdminService"].methods_by_name)


def test_every_method_is_listed_and_no_other() -> None:
    assert set(ACCESS) == METHODS | ADMIN_METHODS
    # A list by name alone: no name may stand for two methods.
    assert not METHODS & ADMIN_METHODS
    assert SERVICE_NAME == "keyferry.fulfillment.v1.FulfillmentService"


def test_only_the_edge_opens_keys_and_only_the_shop_tells_of_money() -> None:
    assert {name for name in METHODS if ACCESS[name] == {"edge"}} == {"CreateDownloadLink", "RevealKey"}
    assert {name for name in METHODS if ACCESS[name] == {"shop"}} == {"SubmitOrder", "ConfirmPayment", "RefundPayment"}
    assert frozenset().union(*ACCESS.values()) == {"edge", "shop"}


def test_only_the_edge_which_knows_who_is_staff_asks_for_what_staff_may() -> None:
    assert {ACCESS[name] for name in ADMIN_METHODS} == {frozenset({"edge"})}
