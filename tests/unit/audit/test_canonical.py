import json

import pytest
from audit.domain.canonical import LARGEST_INTEGER, CanonicalValue, canonical_json
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.recursive(
    st.text() | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER),
    lambda inner: st.dictionaries(st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20)), inner),
)


def test_the_string_example_of_rfc_8785_comes_out_byte_for_byte() -> None:
    # RFC 8785 section 3.2.2 and its result in 3.2.4
    value: CanonicalValue = {"string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/", "numbers": 333333333}
    assert canonical_json(value).encode() == (
        b'{"numbers":333333333,"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_every_control_character_is_escaped_as_ecmascript_does() -> None:
    short = {0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r"}
    for code in range(0x20):
        long = "\\u" + format(code, "04x")
        assert canonical_json(chr(code)) == f'"{short.get(code, long)}"'
    for code in (0x7F, 0x2028, 0x2029, 0xFEFF, 0x1F600):
        assert canonical_json(chr(code)) == f'"{chr(code)}"'


def test_names_are_sorted_by_their_bytes() -> None:
    assert canonical_json({"b": "1", "a": "2", "B": "3", "_": "4"}) == '{"B":"3","_":"4","a":"2","b":"1"}'


@given(VALUES)
def test_it_reads_back_as_the_same_value_and_is_stable(value: object) -> None:
    text = canonical_json(value)  # type: ignore[arg-type] # hypothesis tells no type for a recursive strategy
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize(
    "value", [1.0, True, None, ["a"], {"a": None}, {"é": "a"}, {1: "a"}, 2**53, -(2**53), "\ud800"]
)
def test_what_has_no_exact_form_everywhere_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # the error's class is the promise, its words differ
        canonical_json(value)  # type: ignore[arg-type] # that is the point
