"""The ports of kinguin-gateway in memory: what each adapter promises, implemented once for all tests."""

from tests.unit.kinguin_gateway.fakes.pace import FakeSchedule, a_turnstile
from tests.unit.kinguin_gateway.fakes.purchases import FakePurchases
from tests.unit.kinguin_gateway.fakes.samples import INTENT, REQUEST_ID, Step, a_product, an_order, deliver, no_trouble
from tests.unit.kinguin_gateway.fakes.supplier import FakeSupplier, Mood
from tests.unit.kinguin_gateway.fakes.switch import Row
from tests.unit.kinguin_gateway.fakes.vault import FakeVault
from tests.unit.kinguin_gateway.fakes.webhooks import FakeWebhooks

__all__ = [
    "INTENT",
    "REQUEST_ID",
    "FakePurchases",
    "FakeSchedule",
    "FakeSupplier",
    "FakeVault",
    "FakeWebhooks",
    "Mood",
    "Row",
    "Step",
    "a_product",
    "a_turnstile",
    "an_order",
    "deliver",
    "no_trouble",
]
