"""Which addresses may be connected to. That validators ask, and ask in time, is in test_attacks.py."""

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.validation.scene import patiently

from privet.validation import AddressRefused, Networks
from privet.validation.networks import embedded

four = st.ip_addresses(v=4)
six = st.ip_addresses(v=6)
addresses = four | six


def allows(networks: Networks, address: object, port: int = 80) -> bool:
    try:
        return networks.check(str(address), port) == ipaddress.ip_address(str(address))
    except AddressRefused:
        return False


@pytest.mark.parametrize(
    "address", ["10.0.0.5", "172.16.3.4", "192.168.1.1", "100.64.0.7", "198.51.100.1", "8.8.8.8", "fd00::5", "2606::1"]
)
def test_private_and_public_addresses_are_allowed(address: str) -> None:
    assert allows(Networks(), address)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "127.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1"),
        ("169.254.169.254", "169.254.169.254"),
        ("::1", "::1/128"),
        ("fe80::1", "fe80::/10"),
        ("fd00:ec2::254", "fd00:ec2::/32"),
        ("64:ff9b::a00:5", "64:ff9b::/96"),
        ("::ffff:10.0.0.5", "::ffff:0:0/96"),
    ],
)
def test_what_is_refused_can_be_named(address: str, network: str) -> None:
    assert not allows(Networks(), address)
    assert allows(Networks(allow=[network]), address)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "0.0.0.0/0"),
        ("127.0.0.1", "126.0.0.0/7"),
        ("169.254.169.254", "169.254.0.0/16"),
        ("192.0.0.192", "192.0.0.0/24"),
        ("::1", "::/0"),
        ("fd00:ec2::254", "fd00::/8"),
        ("::ffff:127.0.0.1", "::ffff:0:0/96"),
        ("::ffff:0.0.0.0", "::ffff:0:0/96"),
        ("64:ff9b::7f00:1", "64:ff9b::/96"),
        ("64:ff9b::a9fe:a9fe", "64:ff9b::/96"),
        ("64:ff9b:1::7f00:1", "64:ff9b:1::/48"),
        ("64:ff9b:1:7f00:0:100::", "64:ff9b:1::/48"),
        ("2002:7f00:1::", "2002::/16"),
        ("2001:0:7f00:1:0:0:f5ff:fffa", "2001::/32"),
        ("2001:0:a00:5:0:0:80ff:fffe", "2001::/32"),
        ("fe80::5efe:127.0.0.1", "fe80::/10"),
    ],
)
def test_naming_something_wider_is_not_naming_it(address: str, network: str) -> None:
    assert not allows(Networks(allow=[network]), address)


def test_the_narrowest_network_decides_and_deny_before_allow() -> None:
    networks = Networks(deny=["0.0.0.0/0", "::/0", "10.1.2.0/24"], allow=["10.1.0.0/16", "10.1.2.3", "10.1.2.0/24"])
    assert allows(networks, "10.1.9.9")
    assert not allows(networks, "10.1.2.9")
    assert allows(networks, "10.1.2.3")
    assert not allows(networks, "10.2.0.1")
    assert not allows(networks, "fd00::1")


def test_a_denied_ipv4_address_is_denied_in_every_form() -> None:
    networks = Networks(deny=["10.0.0.5"], allow=["64:ff9b::/96", "::ffff:0:0/96", "2002::/16"])
    assert allows(networks, "64:ff9b::a00:6")
    for form in ("10.0.0.5", "64:ff9b::a00:5", "::ffff:10.0.0.5", "2002:a00:5::1"):
        assert not allows(networks, form)


def test_listeners_are_refused_at_their_port_alone_and_can_be_named() -> None:
    listening = [("10.0.0.1", 8443), ("fd00::1", 8443)]
    for address in ("10.0.0.1", "fd00::1"):
        assert not allows(Networks(listeners=listening), address, 8443)
        assert allows(Networks(listeners=listening), address, 80)
        assert allows(Networks(listeners=listening, allow=[address]), address, 8443)
        assert not allows(Networks(listeners=listening, allow=["10.0.0.0/8", "fd00::/8"]), address, 8443)
    assert allows(Networks(listeners=listening), "10.0.0.2", 8443)


def test_a_listener_at_every_address_is_at_ours_and_at_no_others() -> None:
    networks = Networks(listeners=[("0.0.0.0", 8443), ("::", 8443)], allow=["127.0.0.0/8"])
    assert not allows(networks, "127.0.0.1", 8443)
    assert allows(networks, "127.0.0.1", 80)
    assert allows(networks, "203.0.113.1", 8443)


@pytest.mark.parametrize("address", ["", "www.internal", "10.0.0.1/32", "010.0.0.1", "fe80::1%eth0", "1.2.3"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused):
        Networks(allow=["0.0.0.0/0", "::/0", "fe80::/10"]).check(address, 80)


@pytest.mark.parametrize(
    ("allow", "deny"), [(["10.0.0.1/8"], []), (["internal"], []), ([], ["10.0.0.0/33"]), ([], [""]), (["10."], [])]
)
def test_what_is_no_network_is_an_error_that_says_so(allow: Sequence[str], deny: Sequence[str]) -> None:
    with pytest.raises(ValueError, match=r"is not a network such as 10\.0\.0\.0/8"):
        Networks(allow=allow, deny=deny)


@patiently
@given(addresses)
def test_every_address_is_allowed_or_refused_for_a_reason(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    try:
        checked = Networks().check(str(address), 80)
    except AddressRefused as error:
        refused = str(error)
    else:
        assert checked == address
        assert not any((address.is_loopback, address.is_link_local, address.is_multicast, address.is_unspecified))
        return
    assert refused


@patiently
@given(four)
def test_no_form_of_an_ipv4_address_gets_by_itself_to_where_it_must_not(address: ipaddress.IPv4Address) -> None:
    """Every form is refused as it is; if the form is named, what it stands for decides."""
    number = int(address)
    forms = {
        "::/96": number,
        "::ffff:0:0/96": 0xFFFF << 32 | number,
        "::ffff:0:0:0/96": 0xFFFF << 48 | number,
        "64:ff9b::/96": 0x64FF9B << 96 | number,
        "2002::/16": 0x2002 << 112 | number << 80,
    }
    for network, value in forms.items():
        form = ipaddress.IPv6Address(value)
        assert not allows(Networks(), form)
        if value > 1:
            assert address in list(embedded(form))
            assert allows(Networks(allow=[network]), form) <= allows(Networks(), address)


@patiently
@given(six)
def test_what_an_ipv6_address_stands_for_can_always_be_said(address: ipaddress.IPv6Address) -> None:
    assert all(isinstance(inner, ipaddress.IPv4Address) for inner in embedded(address))


@patiently
@given(addresses, st.sets(st.integers(0, 32), max_size=3), st.sets(st.integers(0, 32), max_size=3))
def test_denying_more_never_allows_more(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, allow: set[int], deny: set[int]
) -> None:
    allowed = [str(ipaddress.ip_network((address, length), strict=False)) for length in sorted(allow)]
    denied = [str(ipaddress.ip_network((address, length), strict=False)) for length in sorted(deny)]
    assert allows(Networks(allow=allowed, deny=denied), address) <= allows(Networks(allow=allowed), address)
