"""The reasons of kinguin-gateway. What order, customer and operator do on each is told in docs/errors.md."""

from datetime import timedelta

import grpc
from chassis.errors import KeyferryError

from kinguin_gateway.domain.purchase import Problem


class PurchaseRefused(KeyferryError):
    """The supplier said a clear no: nothing was bought, and nothing ever will be under this external id."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PURCHASE_REFUSED"

    @classmethod
    def of(cls, problem: Problem) -> "PurchaseRefused":
        """Return the refusal with the supplier's own words."""
        metadata = {"kind": problem.kind, "detail": problem.detail, "trace": problem.trace}
        return cls(f"the supplier refused: {problem.kind}", metadata=metadata)


class PurchaseInDoubt(KeyferryError):
    """It was sent, or may have been, and nobody knows what came of it. Ask again; it is never sent twice meanwhile."""

    code = grpc.StatusCode.ABORTED
    reason = "PURCHASE_IN_DOUBT"

    @classmethod
    def until(cls, wait: timedelta) -> "PurchaseInDoubt":
        """Return the error with the time after which asking again may know more."""
        return cls("whether the supplier took the order is not known yet", retry_after=wait)


class BuyingPaused(KeyferryError):
    """Buying is paused and the purchase waits in line: nothing was sent. It is told when its turn has come."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "BUYING_PAUSED"

    @classmethod
    def until(cls, wait: timedelta) -> "BuyingPaused":
        """Return the error with the time after which asking again does no harm."""
        return cls("buying is paused; the purchase waits in line and nothing was sent", retry_after=wait)


class SupplierUnavailable(KeyferryError):
    """The supplier cannot be asked or gives no usable answer. When placing an order: nothing was sent."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "SUPPLIER_UNAVAILABLE"


class SupplierUnauthorized(KeyferryError):
    """The supplier does not let us in: a matter of credentials, of allowed addresses or of the account."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "SUPPLIER_UNAUTHORIZED"


class ExternalIdConflict(KeyferryError):
    """The external id stands for another purchase already; nothing was done."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "EXTERNAL_ID_CONFLICT"


class PurchaseUnknown(KeyferryError):
    """Nothing was ever asked for under this external id."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "PURCHASE_UNKNOWN"


class PurchaseNotPlaced(KeyferryError):
    """The purchase has no supplier order whose keys could be collected."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PURCHASE_NOT_PLACED"


class ReturnNotAllowed(KeyferryError):
    """The supplier's rules exclude a return of this order; nothing was asked (K50). `rule` says which."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "RETURN_NOT_ALLOWED"


class WebhookUnknown(KeyferryError):
    """No webhook of this name is kept: there never was one, or it is past its retention."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "WEBHOOK_UNKNOWN"


class ProductUnknown(KeyferryError):
    """The supplier does not know the product, or does not sell it (K8)."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "PRODUCT_UNKNOWN"
