from vault.domain.kek import KekUse, KekVersions, missing, uses


def test_a_version_may_be_retired_when_nothing_is_under_it_and_nothing_will_be() -> None:
    versions = KekVersions("v3", frozenset({"v1", "v2", "v3"}))
    found = uses({"v3": 5, "v2": 1}, versions)
    assert [(use.version, use.keys, use.may_be_retired) for use in found] == [
        ("v3", 5, False),
        ("v1", 0, True),
        ("v2", 1, False),
    ]


def test_the_active_version_is_never_retired_also_without_keys() -> None:
    (use,) = uses({}, KekVersions("v1", frozenset({"v1"})))
    assert use == KekUse("v1", 0, is_active=True, is_retained=True)
    assert not use.may_be_retired


def test_a_version_that_is_in_use_and_not_at_hand_is_shown_and_missing() -> None:
    versions, counts = KekVersions("v2", frozenset({"v2"})), {"v1": 3, "v2": 1, "v9": 0}
    assert missing(counts, versions) == {"v1": 3}
    assert [(use.version, use.is_retained, use.may_be_retired) for use in uses(counts, versions)] == [
        ("v2", True, False),
        ("v1", False, False),
        ("v9", False, False),
    ]
