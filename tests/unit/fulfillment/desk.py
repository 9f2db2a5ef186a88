"""What support staff asks for, as the admin service does it: what calls others first, then one transaction."""

from fulfillment.domain.model import Key, KeyId
from fulfillment.operating import Delivery

from tests.unit.fulfillment.office import CAROL, ORDER_ID, Office


def a_delivery(office: Office, request_id: str = "r-1", key_jwe: str = "a.jwe") -> Delivery:
    return Delivery(request_id, ORDER_ID, office.purchase().external_id, "text/plain", key_jwe)


async def deliver(office: Office, request_id: str = "r-1", key_jwe: str = "a.jwe") -> Key:
    key = await office.operating.seal(a_delivery(office, request_id, key_jwe))
    async with office.orders.transaction() as transaction:
        await office.operating.deliver(transaction, ORDER_ID, key, CAROL)
    return key


async def replace_key(office: Office, key_id: KeyId) -> None:
    answer = await office.operating.revoke_for_replacement(ORDER_ID, key_id)
    async with office.orders.transaction() as transaction:
        await office.operating.replace_key(transaction, ORDER_ID, key_id, answer, CAROL)


async def resend(office: Office) -> None:
    async with office.orders.transaction() as transaction:
        await office.operating.resend_mail(transaction, ORDER_ID, CAROL)
