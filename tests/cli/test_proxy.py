import pytest

from privet.cli.serve.proxy import TrustedProxies, read_proxy

PEER = ("10.0.0.1", 5000)


def client(*forwarded: str, peer: tuple[str, int] | None = PEER, trusted: tuple[str, ...] = ("10.0.0.0/24",)) -> object:
    """Who asks, when the peer says that it was forwarded so."""
    headers = [(b"host", b"x"), *((b"x-forwarded-for", each.encode("latin-1")) for each in forwarded)]
    found = TrustedProxies(trusted).client({"type": "http", "client": peer, "headers": headers})
    return found and found[0]


def test_only_what_a_trusted_proxy_wrote_counts() -> None:
    assert client("192.168.0.7") == "192.168.0.7"
    assert client("6.6.6.6, 192.168.0.7") == "192.168.0.7", "the client wrote the first one itself"
    assert client("6.6.6.6", "192.168.0.7") == "192.168.0.7"
    assert client("6.6.6.6,192.168.0.7, 10.0.0.2") == "192.168.0.7", "the second proxy is trusted as well"
    assert client("10.0.0.3, 10.0.0.2") == "10.0.0.3", "a proxy asks for itself"


def test_who_is_not_trusted_is_who_asks() -> None:
    assert client("192.168.0.7", peer=("10.0.1.1", 5000)) == "10.0.1.1"
    assert client("192.168.0.7", trusted=()) == "10.0.0.1"
    assert client("192.168.0.7", peer=None) is None
    assert client("192.168.0.7", trusted=("unix",)) == "10.0.0.1"


def test_a_proxy_that_says_nothing_lends_nobody_its_own_address() -> None:
    assert client() is None
    assert client("") is None
    assert client(peer=None, trusted=("unix",)) is None
    assert client(peer=("10.0.1.1", 5000)) == "10.0.1.1", "it is no trusted proxy, and asks for itself"


def test_on_a_unix_socket_the_last_address_counts() -> None:
    assert client("6.6.6.6, 192.168.0.7", peer=None, trusted=("unix",)) == "192.168.0.7"
    assert client("192.168.0.7, 10.0.0.2", peer=None, trusted=("unix", "10.0.0.2")) == "192.168.0.7"


@pytest.mark.parametrize(
    "word",
    [
        "unknown",
        "_hidden",
        "192.168.0.7:",
        "192.168.0.7:http",
        "192.168.0.7:800000",
        "192.168.0.7:80:80",
        "[a.internal]:80",
        "[::1",
        "[]",
        "192.168.0.007",
        "a.internal",
        "\xa0",
        ",",
        "1 2",
        "\n",
    ],
)
def test_what_is_no_address_is_nobodys(word: str) -> None:
    assert client(f"6.6.6.6, {word}") is None
    assert client(f"6.6.6.6, {word}, 10.0.0.2") is None
    assert client(f"{word}, 192.168.0.7") == "192.168.0.7"


def test_what_is_no_address_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    proxies = TrustedProxies(["10.0.0.0/24"])
    for said in (b"192.168.0.7", b"unknown\n", b"hidden"):
        proxies.client({"type": "http", "client": PEER, "headers": [(b"x-forwarded-for", said)]})
    assert caplog.messages == [
        "a trusted proxy says X-Forwarded-For: 'unknown\\n', which is no address; its clients have none"
    ]


def test_a_port_is_no_part_of_an_address() -> None:
    assert client("192.168.0.7:5000") == "192.168.0.7"
    assert client("[2001:db8::1]:5000") == "2001:db8::1"
    assert client("[2001:db8::1]") == "2001:db8::1"
    assert client("192.168.0.7:5000, 10.0.0.2:80") == "192.168.0.7"
    assert client("2001:db8::1:80") == "2001:db8::1:80", "without brackets it is all address"


def test_an_address_has_one_spelling() -> None:
    assert client("2001:DB8:0::1") == "2001:db8::1"
    assert client("::ffff:192.168.0.7") == "192.168.0.7"
    assert client("192.168.0.7", peer=("::ffff:10.0.0.1", 5000)) == "192.168.0.7", "as a socket for both families says"


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.0/8", "fd00::/8", "::1", "unix"])
def test_a_proxy_is_an_address_or_a_network(text: str) -> None:
    read_proxy(text)


@pytest.mark.parametrize("text", ["", "proxy.internal", "10.0.0.1/8", "10.0.0.1:80", "*", "0.0.0.0/0", "::/0"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_proxy(text)
