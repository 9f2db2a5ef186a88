"""The synchronous client of the shop's documentation, driven without a socket."""

import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from keyferry.fulfillment.v1 import fulfillment_service_pb2
from keyferry.fulfillment.v1.fulfillment_pb2 import Fulfillment, Order, Payment
from keyferry.fulfillment.v1.fulfillment_service_pb2 import SubmitOrderRequest, SubmitOrderResponse

from docs.examples.submit_order import MOST_TRIES, OrderRefused, submit_order

SERVICE = fulfillment_service_pb2.DESCRIPTOR.services_by_name["FulfillmentService"]
METHOD = SERVICE.methods_by_name["SubmitOrder"]
REQUEST_ID = str(uuid.uuid4())
ORDER = Order(order_id="S-1")
PAYMENT = Payment(payment_id="pay-1", order_id="S-1")
WAIT_SECONDS = 10


class Shop:
    """Submits in a thread of its own, so that the test can be the server."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._channel = grpc_testing.channel([SERVICE], grpc_testing.strict_real_time())
        self.answer: Future[Fulfillment] = pool.submit(
            submit_order, self._channel, ORDER, PAYMENT, request_id=REQUEST_ID
        )

    def take(self) -> tuple[SubmitOrderRequest, Any]:
        """Wait for the next call; return what was asked, and the call to be answered."""
        _metadata, request, call = self._channel.take_unary_unary(METHOD)
        assert isinstance(request, SubmitOrderRequest)
        call.send_initial_metadata(())
        return request, call


@contextmanager
def submitting() -> Iterator[Shop]:
    with ThreadPoolExecutor(1) as pool:
        yield Shop(pool)


def packed(*details: Any) -> bytes:
    status = Status(code=code_pb2.INVALID_ARGUMENT, message="order.items: is required")
    for detail in details:
        message = AnyMessage()
        message.Pack(detail)
        status.details.append(message)
    return bytes(status.SerializeToString())


def test_the_answer_is_the_fulfillment() -> None:
    with submitting() as shop:
        request, call = shop.take()
        call.terminate(SubmitOrderResponse(fulfillment=Fulfillment(order_id="S-1")), (), grpc.StatusCode.OK, "")
        assert shop.answer.result(WAIT_SECONDS).order_id == "S-1"
    assert (request.request_id, request.order, request.payment) == (REQUEST_ID, ORDER, PAYMENT)


def test_a_refusal_tells_its_reason_and_its_fields() -> None:
    fault = BadRequest.FieldViolation(field="order.items", description="is required")
    trailer = packed(ErrorInfo(reason="INVALID_REQUEST", domain="keyferry"), BadRequest(field_violations=[fault]))
    with submitting() as shop:
        _, call = shop.take()
        call.terminate(
            None,
            (("grpc-status-details-bin", trailer),),
            grpc.StatusCode.INVALID_ARGUMENT,
            "order.items: is required",
        )
        with pytest.raises(OrderRefused) as refused:
            shop.answer.result(WAIT_SECONDS)
    assert refused.value.reason == "INVALID_REQUEST"
    assert refused.value.fields == {"order.items": "is required"}


def test_a_refusal_without_details_is_named_by_its_code() -> None:
    with submitting() as shop:
        _, call = shop.take()
        call.terminate(None, (), grpc.StatusCode.PERMISSION_DENIED, "not for this caller")
        with pytest.raises(OrderRefused) as refused:
            shop.answer.result(WAIT_SECONDS)
    assert (refused.value.reason, refused.value.fields) == ("PERMISSION_DENIED", {})


def test_no_answer_is_asked_again_under_the_same_request_id() -> None:
    with submitting() as shop:
        first, call = shop.take()
        call.terminate(None, (), grpc.StatusCode.UNAVAILABLE, "gone")
        second, call = shop.take()
        call.terminate(SubmitOrderResponse(), (), grpc.StatusCode.OK, "")
        shop.answer.result(WAIT_SECONDS)
    assert first == second


def test_asking_again_has_an_end() -> None:
    with submitting() as shop:
        for _ in range(MOST_TRIES):
            _, call = shop.take()
            call.terminate(None, (), grpc.StatusCode.DEADLINE_EXCEEDED, "slow")
        with pytest.raises(grpc.RpcError):
            shop.answer.result(WAIT_SECONDS)
