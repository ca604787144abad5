"""base64url and JSON: one spelling for one value, and any bytes give a value or a problem."""

import base64
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.laws import documents, outcome, texts

from privet.acme.encoding import from_base64url, from_json, make_encode, to_base64url, to_json
from privet.acme.problems import Problem, ProblemType


def refused(data: bytes) -> None:
    with pytest.raises(Problem) as refusal:
        from_json(data, "the request")
    assert refusal.value.type is ProblemType.MALFORMED


# base64url


# RFC 4648 §10, RFC 7515 appendix C
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"f", "Zg"),
        (b"fo", "Zm8"),
        (b"foo", "Zm9v"),
        (b"foob", "Zm9vYg"),
        (b"fooba", "Zm9vYmE"),
        (b"foobar", "Zm9vYmFy"),
        (bytes([3, 236, 255, 224, 193]), "A-z_4ME"),
    ],
)
def test_vectors_of_the_rfcs_go_both_ways(data: bytes, text: str) -> None:
    assert to_base64url(data) == text
    assert from_base64url(text, "it") == data


@given(st.binary())
def test_what_is_encoded_comes_back(data: bytes) -> None:
    text = to_base64url(data)
    assert text == base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    assert from_base64url(text, "it") == data


@given(texts | st.text("AZaz09-_+/= \n"))
def test_any_text_has_one_value_or_none(text: str) -> None:
    data = outcome(from_base64url, text, "it")
    assert data.type is ProblemType.MALFORMED if isinstance(data, Problem) else to_base64url(data) == text


@pytest.mark.parametrize(
    "text",
    [
        "Zg==",  # padding
        "Zm9vYg=",
        "A+z/4ME",  # the other alphabet
        "A-z/4ME",
        "Zh",  # spare bits that are not zero: a second spelling of Zg
        "Zm9",
        "Z",  # six bits are no octet
        "Zm9vY",
        " Zg",
        "Zg\n",
        "Zm\r\n8",
        "Zg\0",
        "\uff3a\uff47",  # full-width letters
        "\ud800",
        "=",
    ],
)
def test_a_second_spelling_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="nonce"):
        from_base64url(text, "the nonce")


@pytest.mark.parametrize("value", [None, 7, b"Zg", ["Zg"], {"Zg": 1}, True])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(Problem, match="csr must be a string"):
        from_base64url(value, "csr")


# JSON


@given(st.dictionaries(texts, documents, max_size=5))
def test_a_document_comes_back(document: dict[str, object]) -> None:
    assert from_json(to_json(document), "it") == document


@given(documents)
def test_what_is_written_is_json_in_ascii_on_one_line(document: object) -> None:
    written = to_json(document)
    assert written.isascii()
    assert b"\n" not in written
    assert json.loads(written) == document


@given(st.binary())
def test_any_bytes_give_an_object_or_a_problem(data: bytes) -> None:
    document = outcome(from_json, data, "it")
    assert isinstance(document, dict) or document.type is ProblemType.MALFORMED


@given(documents)
def test_json_that_is_no_object_is_refused(document: object) -> None:
    if not isinstance(document, dict):
        refused(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',  # the same name, written otherwise
        b'{"a":{"b":[{"c":1,"c":2}]}}',
    ],
)
def test_a_member_given_twice_is_refused(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',  # an overlong slash
        b'{"a":"\xed\xa0\x80"}',  # a surrogate
        b'{"a":"\xf4\x90\x80\x80"}',  # beyond Unicode
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32"),
        b'\xef\xbb\xbf{"a":1}',  # RFC 8259 §8.1: no byte order mark
    ],
)
def test_what_is_no_utf_8_is_refused(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000, "0x10", "01", "1."])
def test_a_number_that_is_none_or_too_large_is_refused(number: str) -> None:
    refused(b'{"a":%s}' % number.encode())


def test_a_large_number_is_a_number() -> None:
    assert from_json(b'{"a":%s}' % (b"9" * 4000), "it") == {"a": 10**4000 - 1}
    assert math.isfinite(from_json(b'{"a":1e308}', "it")["a"])


@pytest.mark.parametrize("depth", [500, 5_000, 32_000])
def test_nested_json_gives_a_value_or_a_problem(depth: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        data = b'{"a":' + opening * depth + b"1" + closing * depth + b"}"
        document = outcome(from_json, data, "it")
        assert isinstance(document, dict) or document.type is ProblemType.MALFORMED


@pytest.mark.parametrize("data", [b"", b" ", b"{", b"{}x", b"{}{}", b"{'a':1}", b'{"a":1,}', b"{\0}", b'{"a":"\n"}'])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    refused(data)


def test_lone_surrogates_come_in_and_go_out_as_escapes() -> None:
    document = from_json(rb'{"a":"\ud800"}', "it")
    assert document == {"a": "\ud800"}
    assert to_json(document) == rb'{"a":"\ud800"}'


@given(documents)
def test_where_cpythons_encoder_is_missing_the_same_is_written(document: dict[str, object]) -> None:
    assert make_encode(None)(document).encode() == to_json(document)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_without_it_no_number_that_is_none_is_written_either(number: float) -> None:
    with pytest.raises(ValueError):
        make_encode(None)({"a": number})
