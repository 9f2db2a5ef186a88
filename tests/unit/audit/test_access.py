from audit.access import ACCESS
from audit.service import SERVICE_NAME
from keyferry.audit.v1 import audit_service_pb2 as pb


def test_every_method_is_listed_and_no_other() -> None:
    methods = pb.DESCRIPTOR.services_by_name["AuditService"].methods_by_name
    assert set(ACCESS) == set(methods)
    assert SERVICE_NAME == "keyferry.audit.v1.AuditService"


def test_nobody_outside_of_the_system_writes_and_no_writer_reads_but_the_edge() -> None:
    assert "shop" not in ACCESS["AppendEntry"]
    assert ACCESS["AppendEntry"] & ACCESS["ListEntries"] == {"edge"}
