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


class KeyRevoked(KeyferryError):
    """The key was its owner's and was taken back before it was opened. Nobody else hears that there ever was one."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "KEY_REVOKED"


class RefundReused(KeyferryError):
    """The refund is known with other content; nothing was stored."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "REFUND_REUSED"


class NothingToCancel(KeyferryError):
    """Nothing of the order is outstanding that could be called off; nothing was changed."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "NOTHING_TO_CANCEL"


class NothingToRetry(KeyferryError):
    """No purchase of the order needs attention; nothing was changed."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "NOTHING_TO_RETRY"


class PurchaseNotSettled(KeyferryError):
    """The purchase was made, or may yet have been: a key delivered by hand would be one too many."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PURCHASE_NOT_SETTLED"


class PurchaseNotFound(KeyferryError):
    """The order has no such purchase."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "PURCHASE_NOT_FOUND"


class KeyNotNeeded(KeyferryError):
    """The purchase has all its keys; what was uploaded was destroyed."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "KEY_NOT_NEEDED"


class KeyReplaced(KeyferryError):
    """Another key is bought in place of this one already, or it was taken back."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "KEY_REPLACED"


class MailLimit(KeyferryError):
    """The order's mail was sent again too often; it may be again after a while."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "MAIL_LIMIT"


class MailNotDue(KeyferryError):
    """No key of the order could be opened yet, so that there is no mail to send again."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "MAIL_NOT_DUE"


class PaymentNotAssignable(KeyferryError):
    """The payment cannot be given to that order; nothing was changed. `why` says what does not fit."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PAYMENT_NOT_ASSIGNABLE"


class PaymentMatched(KeyferryError):
    """The payment has an order, so that it cannot be closed; nothing was changed."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PAYMENT_MATCHED"


class PaymentClosed(KeyferryError):
    """A person has closed the payment; nothing was changed."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PAYMENT_CLOSED"


class CustomerNotSettled(KeyferryError):
    """Orders of the customer are under way, or money of them is owed; nothing was changed. `order_ids` names them."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "CUSTOMER_NOT_SETTLED"


class PaymentNotFound(KeyferryError):
    """There is no such payment."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "PAYMENT_NOT_FOUND"
