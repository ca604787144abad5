from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.laws import texts

from privet.acme.identifiers import (
    BadIdentifier,
    Identifier,
    IdentifierType,
    UnsupportedIdentifier,
    from_json,
    from_text,
)

DNS, IP = IdentifierType.DNS, IdentifierType.IP


@pytest.mark.parametrize(
    ("text", "type", "value"),
    [
        ("worker-1.internal", DNS, "worker-1.internal"),
        ("Worker-1.INTERNAL", DNS, "worker-1.internal"),
        ("localhost", DNS, "localhost"),
        ("1password.internal", DNS, "1password.internal"),
        ("0xfeed.internal", DNS, "0xfeed.internal"),
        ("*.w.internal", DNS, "*.w.internal"),
        ("Bücher.internal", DNS, "xn--bcher-kva.internal"),
        ("xn--bcher-kva.internal", DNS, "xn--bcher-kva.internal"),
        ("*.bücher.internal", DNS, "*.xn--bcher-kva.internal"),
        ("*.BÜCHER.Internal", DNS, "*.xn--bcher-kva.internal"),
        ("例え.テスト", DNS, "xn--r8jz45g.xn--zckzah"),
        ("10.0.0.1", IP, "10.0.0.1"),
        ("::1", IP, "::1"),
        ("2001:DB8:0:0::1", IP, "2001:db8::1"),
    ],
)
def test_names_are_read_as_people_write_them(text: str, type: IdentifierType, value: str) -> None:
    assert from_text(text) == Identifier(type, value)


NEVER_NAMES = [
    "",
    ".",
    "a..internal",
    ".a.internal",
    "a.internal.",
    "-a.internal",
    "a-.internal",
    "under_score.internal",
    "a b.internal",
    "a\0b.internal",
    "a\n.internal",
    "a.internal\n",
    "a/b",
    "a:8443",
    "user@a.internal",
    "*",
    "*.",
    "a.*.internal",
    "a*.internal",
    "*.*.internal",
    "*a.internal",
    f"{'a' * 64}.internal",
    ".".join(["a" * 50] * 5),
    "xn--a.internal",
    "xn--.internal",
    "xn--a-ecp.ru",  # decodes to something that is not its own encoding
    "ab--c.internal",
    "127.1",
    "1.2.3",
    "1.2.3.4.5",
    "256.0.0.1",
    "010.0.0.1",
    "0x7f000001",
    "a.0x7f",
    "a.123",
    "10.0.0.1/32",
    "*.10.0.0.1",
    "[::1]",
    "::ffff:10.0.0.1",
    "fe80::1%eth0",
    "1::2::3",
]


@pytest.mark.parametrize("name", [97, b"a.internal", b"\x0a\0\0\1", None, ["a.internal"], *IdentifierType])
def test_names_are_text(name: Any) -> None:
    """What is 97 to `ipaddress` is 0.0.0.97, and each octet of b"a.internal" is a number."""
    with pytest.raises(BadIdentifier, match="names are text"):
        from_text(name)


@pytest.mark.parametrize("text", NEVER_NAMES)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BadIdentifier):
        from_text(text)
    for type in IdentifierType:
        with pytest.raises(BadIdentifier):
            from_json(type, text)


@pytest.mark.parametrize(
    "text",
    [
        "\N{FULLWIDTH DIGIT ONE}.2.3.4",
        "\N{SUPERSCRIPT ONE}0.0.0.1",
        "a\N{IDEOGRAPHIC FULL STOP}",
        "b\N{ZERO WIDTH JOINER}",
    ],
)
def test_what_only_looks_like_a_name_is_refused(text: str) -> None:
    with pytest.raises(BadIdentifier):
        from_text(text)


@pytest.mark.parametrize(
    ("type", "value", "complaint"),
    [
        ("dns", "bücher.internal", "characters other than letters"),
        ("dns", "10.0.0.1", "has the type ip"),
        ("dns", "::1", "characters other than"),
        ("ip", "a.internal", "is not an IP address"),
        ("ip", "2001:DB8::1", "write 2001:db8::1"),
        ("ip", "2001:db8:0::1", "write 2001:db8::1"),
        ("ip", " 10.0.0.1", "is not an IP address"),
        ("dns", None, "both strings"),
        (1, "a.internal", "both strings"),
        ("dns", ["a.internal"], "both strings"),
    ],
)
def test_the_protocol_is_read_exactly(type: object, value: object, complaint: str) -> None:
    with pytest.raises(BadIdentifier, match=complaint):
        from_json(type, value)


def test_letter_case_of_a_dns_name_does_not_count() -> None:
    assert from_json("dns", "*.A.Internal") == from_text("*.a.internal")


@pytest.mark.parametrize("type", ["email", "DNS", "", "dns "])
def test_other_types_are_unsupported(type: str) -> None:
    with pytest.raises(UnsupportedIdentifier, match="dns and ip are"):
        from_json(type, "a.internal")


def test_the_base_of_a_wildcard_is_the_name_whose_control_is_proved() -> None:
    assert from_text("*.a.internal").base == from_text("a.internal").base == from_text("a.internal")
    assert from_text("*.a.internal").wildcard
    assert not from_text("a.internal").wildcard
    assert not from_text("10.0.0.1").wildcard


def check(identifier: Identifier) -> None:
    """What every identifier that exists keeps."""
    assert from_json(*identifier.to_json().values()) == identifier
    assert from_text(identifier.value) == identifier
    assert str(identifier) == identifier.value
    assert identifier.value.isascii()
    assert identifier.value == identifier.value.lower()
    assert 0 < len(identifier.value) <= 253
    assert from_text(str(identifier.base)) == identifier.base


def check_refusal(error: BadIdentifier) -> None:
    assert str(error).isprintable()


nearly_names = st.from_regex(r"(\*\.)?([a-zA-Z0-9äß\u3002-]{1,12}\.){0,4}[a-z0-9-]{1,6}\.?", fullmatch=True)


@given(texts | st.text(max_size=300) | nearly_names | st.ip_addresses().map(str))
@example("*.\ud800")
@example("xn--\u0660")
def test_any_text_gives_an_identifier_or_a_refusal(text: str) -> None:
    for read in (from_text, lambda text: from_json("dns", text), lambda text: from_json("ip", text)):
        try:
            identifier = read(text)
        except BadIdentifier as error:
            check_refusal(error)
        else:
            check(identifier)


@given(st.ip_addresses())
def test_an_address_is_itself_in_every_spelling(address: IPv4Address | IPv6Address) -> None:
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address.scope_id):
        return
    assert from_text(str(address)) == from_text(address.exploded) == Identifier(IP, str(address))
