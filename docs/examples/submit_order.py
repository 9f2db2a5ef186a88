"""Tell Keyferry of a paid order from a synchronous program, such as a Django view or a cron job.

Needs `grpcio`, `grpcio-status` and Keyferry's contracts (`protos/`), and nothing else of Keyferry.
"""

from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status
from keyferry.fulfillment.v1.fulfillment_pb2 import Fulfillment, Order, Payment
from keyferry.fulfillment.v1.fulfillment_service_pb2 import SubmitOrderRequest
from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceStub

ANSWER_SECONDS = 10.0
MOST_TRIES = 3
# No answer is not a no: the order may be stored. The same request again finds out, and cannot store it twice.
NO_ANSWER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class OrderRefused(Exception):
    """Keyferry said no and stored nothing. `fields` says what to change, field by field."""

    def __init__(self, reason: str, message: str, fields: dict[str, str]) -> None:
        super().__init__(message)
        self.reason = reason
        self.fields = fields


def open_channel(address: str, certificates: Path) -> grpc.Channel:
    """Open a channel with the certificate of the identity `spiffe://keyferry/shop`: tls.crt, tls.key and ca.crt."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(certificates / "ca.crt").read_bytes(),
        private_key=(certificates / "tls.key").read_bytes(),
        certificate_chain=(certificates / "tls.crt").read_bytes(),
    )
    # Whoever answers at this address must be fulfillment, whatever the address is.
    return grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", "fulfillment")])


def submit_order(channel: grpc.Channel, order: Order, payment: Payment, *, request_id: str) -> Fulfillment:
    """Submit a paid order and return Keyferry's work on it. Raises OrderRefused, or grpc.RpcError without an answer.

    `request_id` is a UUID that the shop stored with the order before the first call; it is the same in every repeat.
    """
    request = SubmitOrderRequest(request_id=request_id, order=order, payment=payment)
    stub = FulfillmentServiceStub(channel)
    tries = 0
    while True:
        tries += 1
        try:
            return stub.SubmitOrder(request, timeout=ANSWER_SECONDS).fulfillment
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() not in NO_ANSWER:
                raise refusal(error) from error
            if tries == MOST_TRIES:
                raise


def refusal(error: grpc.Call) -> OrderRefused:
    """Read the reason and the faulty fields out of an answer."""
    reason, fields = error.code().name, dict[str, str]()
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info, faults = ErrorInfo(), BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(faults):
            fields = {fault.field: fault.description for fault in faults.field_violations}
    return OrderRefused(reason, error.details() or "", fields)
