from keyferry.vault.v1 import vault_service_pb2
from vault.access import ACCESS, KEY_FIELDS


def test_every_method_of_the_contract_says_who_may_call_it() -> None:
    service = vault_service_pb2.DESCRIPTOR.services_by_name["VaultService"]
    assert ACCESS.keys() == set(service.methods_by_name)


def test_only_who_buys_or_passes_on_an_upload_seals_and_only_who_knows_the_owner_does_the_rest() -> None:
    callers = dict(ACCESS)
    assert callers.pop("SealKey") == {"kinguin-gateway", "fulfillment"}
    assert callers.pop("RewrapKeys") == {"operator"}, "no service of ours changes KEKs, and an operator opens no key"
    assert set(callers.values()) == {frozenset({"fulfillment"})}


def test_each_who_seals_has_one_field_of_its_own_for_the_key() -> None:
    assert KEY_FIELDS.keys() == ACCESS["SealKey"]
    assert len(set(KEY_FIELDS.values())) == len(KEY_FIELDS)
