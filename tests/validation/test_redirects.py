"""Where a redirect leads: any Location at all is a place we may go to, or a problem."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.laws import outcome
from tests.validation.scene import patiently

from privet.acme.identifiers import from_json
from privet.acme.problems import Problem
from privet.validation.redirects import Target, first_target, follow

START = first_target("www.internal", 80, "token")
PORTS = frozenset({80, 443})


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/there", "http://www.internal/there"),
        ("there", "http://www.internal/.well-known/acme-challenge/there"),
        ("?a=b", "http://www.internal/.well-known/acme-challenge/token?a=b"),
        ("../../x", "http://www.internal/x"),
        ("//other.internal", "http://other.internal/"),
        ("//other.internal/x", "http://other.internal/x"),
        ("http://other.internal", "http://other.internal/"),
        ("HTTPS://Other.Internal./x#fragment", "https://other.internal/x"),
        ("https://other.internal:443/x", "https://other.internal/x"),
        ("https://other.internal:80/x", "https://other.internal:80/x"),
        ("http://other.internal:/x", "http://other.internal/x"),
        ("http://10.0.0.5/%2e%2e?x", "http://10.0.0.5/%2e%2e?x"),
        ("http://[FD00:0::5]:443/", "http://[fd00::5]:443/"),
        ("http://db/x", "http://db/x"),
        ("http://other.internal?x=http://evil@127.0.0.1", "http://other.internal/?x=http://evil@127.0.0.1"),
        ("http://xn--bcher-kva.internal/", "http://xn--bcher-kva.internal/"),
    ],
)
def test_where_it_leads(location: str, url: str) -> None:
    assert str(follow(START, location.encode(), PORTS)) == url


def test_an_address_has_brackets_where_it_needs_them() -> None:
    assert first_target("fd00::5", 80, "token").authority == "[fd00::5]"
    assert first_target("fd00::5", 5002, "token").authority == "[fd00::5]:5002"


pieces = "http https file : // / \\ @ [ ] % # ? . .. * 80 localhost 127.0.0.1 0x7f 2130706433 ::1 www.internal"
urls = st.lists(st.sampled_from([*pieces.split(" "), " ", "\t", "\r\n"]) | st.text(max_size=3), max_size=8).map("".join)


@patiently
@given(st.binary(max_size=100) | urls.map(lambda url: url.encode("utf-8", "surrogatepass")))
@example(b"http://[::1")
@example(b"//[")
@example(b"http://a:99999999999999999999/")
def test_any_location_is_a_target_or_a_problem(location: bytes) -> None:
    target = outcome(follow, START, location, PORTS)
    if isinstance(target, Problem):
        return
    assert target.scheme in ("http", "https")
    assert target.port in PORTS
    assert target.path.startswith("/")
    assert target.path.isascii()
    assert target.path.isprintable()
    assert " " not in target.path
    try:
        assert str(ipaddress.ip_address(target.host)) == target.host
    except ValueError:
        assert from_json("dns", target.host).value == target.host
    # Written out and read again it is the same place: nobody who reads it takes it for another.
    assert follow(START, str(target).encode(), PORTS) == target
    assert isinstance(target, Target)
