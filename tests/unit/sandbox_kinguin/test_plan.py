from sandbox.kinguin.plan import Circumstances, Step, plan_steps


def steps(ordered: int = 5, on_hand: int = 5, release_at: float | None = None, **kwargs: object) -> list[Step]:
    circumstances = Circumstances(**kwargs)  # type: ignore[arg-type] # a shorthand of this test
    return plan_steps(
        circumstances, now=100.0, fulfil_seconds=10.0, ordered=ordered, on_hand=on_hand, release_at=release_at
    )


def test_on_a_good_day_everything_comes_at_once() -> None:
    assert steps() == [Step(110, "deliver")]


def test_promised_keys_come_later() -> None:
    assert steps(on_hand=2) == [Step(110, "deliver", 2), Step(150, "deliver")]
    assert steps(on_hand=0) == [Step(150, "deliver")]


def test_a_partial_delivery_has_a_rest() -> None:
    assert steps(first_keys=1, rest_seconds=3.0) == [Step(110, "deliver", 1), Step(113, "deliver")]
    assert steps(first_keys=9) == [Step(110, "deliver")]


def test_a_pre_order_waits() -> None:
    assert steps(release_at=500.0) == [Step(500, "deliver")]
    assert steps(release_at=5.0) == [Step(110, "deliver")]


def test_a_canceled_order_may_deliver_a_part_before() -> None:
    assert steps(cancel=True) == [Step(110, "cancel")]
    assert steps(cancel=True, first_keys=2) == [Step(110, "deliver", 2), Step(120, "cancel")]


def test_a_held_order_has_no_time() -> None:
    assert steps(hold=True) == [Step(None, "deliver")]
