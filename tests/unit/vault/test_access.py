from keyferry.vault.v1 import vault_service_pb2
from vault.access import ACCESS


def test_every_method_of_the_contract_says_who_may_call_it() -> None:
    service = vault_service_pb2.DESCRIPTOR.services_by_name["VaultService"]
    assert ACCESS.keys() == set(service.methods_by_name)


def test_only_who_buys_seals_and_only_who_knows_the_owner_opens() -> None:
    assert ACCESS["SealKey"] == {"kinguin-gateway"}
    assert ACCESS["CreateDownloadLink"] == ACCESS["RevealKey"] == {"fulfillment"}
