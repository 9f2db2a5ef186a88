"""The reasons of fulfillment. What customer and operator do on each is told in docs/errors.md."""

import grpc
from chassis.errors import KeyferryError


class OrderNotFound(KeyferryError):
    """No such order, or not this customer's: one answer for both."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "ORDER_NOT_FOUND"


class OrderConflict(KeyferryError):
    """The order is known with other content; nothing was stored."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ORDER_CONFLICT"


class PaymentReused(KeyferryError):
    """The payment is known for another order, or with another amount; nothing was stored."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "PAYMENT_REUSED"


class ProductUnknown(KeyferryError):
    """The supplier does not know the product; nothing was stored."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "PRODUCT_UNKNOWN"


class KeyNotFound(KeyferryError):
    """The order has no such key that could be opened."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "KEY_NOT_FOUND"
