"""Patterns of names: what they cover, what they touch, and what is no pattern."""

import fnmatch
import itertools
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.acme.identifiers import BadIdentifier, from_text
from privet.server.names import BadPattern, Names, is_in, read_address, read_network, read_text_pattern


def covers(pattern: str, name: str) -> bool:
    return Names([pattern]).cover(from_text(name))


def touches(pattern: str, name: str) -> bool:
    return Names([pattern]).touch(from_text(name))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("web.internal", "web.internal"),
        ("WEB.Internal", "web.internal"),
        ("web.internal", "WEB.INTERNAL"),
        ("db", "db"),
        ("?*", "db"),
        ("*.team-a.internal", "web.team-a.internal"),
        ("*.Team-A.internal", "*.team-a.internal"),
        ("db-?.internal", "db-1.internal"),
        ("db-*.internal", "db-1-backup.internal"),
        ("*-eu.internal", "web-eu.internal"),
        ("web.*.internal", "web.team-a.internal"),
        ("**.internal", "web.internal"),
        ("**.internal", "a.b.c.internal"),
        ("**.internal", "*.b.c.internal"),
        ("**", "db"),
        ("**", "a.b.c"),
        ("**", "*.a.b"),
        ("bücher.internal", "xn--bcher-kva.internal"),
        ("BÜCHER.internal", "bücher.internal"),
        ("*.bücher.internal", "a.xn--bcher-kva.internal"),
        ("*.internal", "bücher.internal"),
        ("1.2.internal", "1.2.internal"),
        ("*.1.internal", "a.1.internal"),
        ("10.0.0.7", "10.0.0.7"),
        ("10.0.0.0/8", "10.255.0.1"),
        ("fd00::/8", "fd00::1"),
        ("FD00:0::1", "fd00::1"),
        ("0.0.0.0/0", "8.8.8.8"),
    ],
)
def test_what_a_pattern_covers(pattern: str, name: str) -> None:
    assert covers(pattern, name)
    if not from_text(name).wildcard:
        assert touches(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("web.internal", "web.internal.evil"),
        ("web.internal", "evilweb.internal"),
        ("web.internal", "webxinternal"),
        ("web.internal", "*.web.internal"),
        ("*.team-a.internal", "team-a.internal"),
        ("*.team-a.internal", "a.b.team-a.internal"),
        ("*.team-a.internal", "*.b.team-a.internal"),
        ("*.team-a.internal", "team-a.internal.evil"),
        ("*.team-a.internal", "evil-team-a.internal"),
        ("db-?.internal", "db-12.internal"),
        ("db-?.internal", "db-1.x.internal"),
        ("d*.internal", "d.x.internal"),
        ("**.internal", "internal"),
        ("**.internal", "evilinternal"),
        ("?*", "a.b"),
        ("*.internal", "*.a.internal"),
        ("b?cher.internal", "bücher.internal"),
        ("xn--bcher-kva.internal", "bucher.internal"),
        ("**", "10.0.0.1"),
        ("?*", "10.0.0.1"),
        ("10.0.0.0/8", "11.0.0.1"),
        ("10.0.0.0/8", "10.internal"),
        ("::/0", "10.0.0.1"),
        ("0.0.0.0/0", "::1"),
        ("10.0.0.0/8", "::a00:1"),
        ("10.0.0.0/8", "2002:a00:1::"),
        # What is not a label's whole `*` covers no wildcard: it stands for too many names.
        ("?.internal", "*.internal"),
        ("db-*.internal", "*.internal"),
        ("*-eu.internal", "*.internal"),
        ("a*.internal", "*.internal"),
        ("web.internal", "*.internal"),
    ],
)
def test_what_a_pattern_does_not_cover(pattern: str, name: str) -> None:
    assert not covers(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "wildcard"),
    [
        ("secret.a.internal", "*.a.internal"),
        ("SECRET.a.internal", "*.A.internal"),
        ("db-?.a.internal", "*.a.internal"),
        ("*.a.internal", "*.a.internal"),
        ("**.internal", "*.internal"),
        ("**.internal", "*.a.b.internal"),
        ("**.a.internal", "*.a.internal"),
        ("**", "*.internal"),
        ("secret.*.internal", "*.a.internal"),
        ("geheim.bücher.internal", "*.bücher.internal"),
    ],
)
def test_what_touches_one_name_of_a_wildcard(pattern: str, wildcard: str) -> None:
    assert touches(pattern, wildcard)


@pytest.mark.parametrize(
    ("pattern", "wildcard"),
    [
        ("a.internal", "*.a.internal"),
        ("x.secret.a.internal", "*.a.internal"),
        ("secret.a.internal", "*.b.internal"),
        ("**.a.internal", "*.internal"),
        ("db", "*.internal"),
        ("?*", "*.internal"),
        ("10.0.0.0/8", "*.internal"),
    ],
)
def test_what_touches_no_name_of_a_wildcard(pattern: str, wildcard: str) -> None:
    assert not touches(pattern, wildcard)


LABELS = ("a", "ab", "b", "a-b")
PATTERN_LABELS = ("*", "a", "a*", "?", "*b", "**")


def test_a_wildcard_is_all_the_names_it_stands_for() -> None:
    """Every pattern of up to three labels, against every wildcard of up to three: `cover` never says more than that
    all names are covered, and `touch` says exactly whether one is."""
    # Enough labels that each pattern has some it matches and some it does not.
    stand_ins = (*LABELS, "c", "zz", "a-very-long-one")
    for length in (1, 2, 3):
        for labels in itertools.product(PATTERN_LABELS, repeat=length):
            try:
                names = Names([".".join(labels)])
            except BadPattern:
                assert "**" in labels[1:] or labels == ("*",)
                continue
            for below in (1, 2):
                for rest in itertools.product(("a", "b", "ab"), repeat=below):
                    base = ".".join(rest)
                    wildcard = from_text(f"*.{base}")
                    covered = [names.cover(from_text(f"{label}.{base}")) for label in stand_ins]
                    assert names.touch(wildcard) is any(covered), (labels, base)
                    if names.cover(wildcard):
                        assert all(covered), (labels, base)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        ".",
        "a..internal",
        ".internal",
        "*.internal.",
        "a.**.internal",
        "a**.internal",
        "***.internal",
        "-*.internal",
        "*-.internal",
        "*",
        "a_*.internal",
        "b*cher.bü_cher",
        "bü*.internal",
        "*.10",
        "10.*",
        "10.0.0.?",
        "10.0.0",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "fd00::1/8",
        "a.internal/8",
        "::ffff:10.0.0.1",
        "::ffff:10.0.0.0/104",
        "fe80::1%eth0",
        "*.xn--a.internal",
        "*.a\u3002b.internal",
        "*.a\uff0eb.internal",
        "*.a b.internal",
        "*.internal\n",
        "*." + "a" * 64,
        "*." + "a." * 130 + "internal",
        "*.\u0000.internal",
        "[ab].internal",
    ],
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(BadPattern):
        Names([pattern])


def test_a_full_stop_of_another_script_is_a_dot_and_nothing_cut_off() -> None:
    assert covers("a\u3002b.internal", "a.b.internal")
    assert not covers("a\u3002b.internal", "a.internal")


@given(st.text() | st.text("ab*?.-/:01ü", max_size=20), st.text("ab*.-01", max_size=12))
def test_any_text_is_a_pattern_or_is_refused(pattern: str, name: str) -> None:
    try:
        names = Names([pattern])
        identifier = from_text(name)
    except (BadPattern, BadIdentifier):
        return
    if names.cover(identifier) and identifier.wildcard:
        assert re.search(r"\*", pattern), "nothing but a star covers a wildcard"


@pytest.mark.parametrize(
    ("client", "network", "inside"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("::FFFF:a01:203", "10.0.0.0/8", True),
        ("fe80::1%eth0", "fe80::/10", True),
        ("::ffff:11.1.2.3", "10.0.0.0/8", False),
        ("::ffff:10.1.2.3", "::/0", False),
        ("::10.1.2.3", "10.0.0.0/8", False),
        ("2002:a01:203::", "10.0.0.0/8", False),
        ("10.1.2.3", "::/0", False),
    ],
)
def test_where_a_client_is(client: str, network: str, inside: bool) -> None:
    address = read_address(client)
    assert address is not None
    assert is_in(address, [read_network(network)]) is inside


@pytest.mark.parametrize(
    "client", ["", "unknown", "10.1.2", "10.1.2.3:80", "010.1.2.3", "10.1.2.3, 10.0.0.1", "[::1]", "host.internal", "0"]
)
def test_what_is_no_address_is_nowhere(client: str) -> None:
    assert read_address(client) is None


def test_names_in_certificates_need_not_be_dns_names() -> None:
    for pattern, name, fits in (
        ("my_app", "my_app", True),
        ("My_App", "my_app", True),
        ("host-*.internal", "host-1.internal", True),
        ("host-*.internal", "host-1.evil.internal", False),
        ("a+b", "aab", False),
        ("a.b", "axb", False),
        ("**.internal", "a.b.internal", True),
        ("**.internal", "internal", False),
        ("**.internal", ".internal", False),
        ("**", "a.b", True),
        ("?*", "a.b", False),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c-b", False),
    ):
        assert bool(read_text_pattern(pattern).fullmatch(name)) is fits
    for pattern in ("", " ", "a\nb", "*", "a.**", "a**", "***.internal"):
        with pytest.raises(BadPattern):
            read_text_pattern(pattern)
    for pattern in ("10.0.0.0/8", "spiffe://internal/web"):
        with pytest.raises(BadPattern, match="is no name in a certificate; networks are for client"):
            read_text_pattern(pattern)


@pytest.mark.parametrize("read", [lambda text: Names([text]), read_text_pattern])
def test_a_star_alone_says_what_to_write_instead(read: Callable[[str], object]) -> None:
    with pytest.raises(BadPattern, match=r"write \*\* for every name, or \?\* for every name without a dot"):
        read("*")


@given(
    st.text("ab-*?", min_size=1, max_size=12).filter(lambda text: "**" not in text and text != "*"),
    st.lists(st.text("ab-", min_size=1, max_size=8), max_size=3),
)
def test_stars_mean_what_they_mean_in_file_names(pattern: str, labels: list[str]) -> None:
    fits = read_text_pattern(pattern).fullmatch(".".join(labels)) is not None
    assert fits is (len(labels) <= 1 and fnmatch.fnmatchcase("".join(labels), pattern))


@pytest.mark.parametrize(
    "pattern", ["*-*-*.*-*-*.internal", "*a*a*a*a.*a*a*a*.internal", "**.*a*a*a*a*a*a*a*b.internal"]
)
def test_no_name_is_made_to_take_long(pattern: str) -> None:
    """Ten thousand of the kind on which a search that tries every place for every star would not come to its end."""
    names, text = Names([pattern]), read_text_pattern(pattern)
    for number in range(10_000):
        label = ("a-" * 31)[: 40 + number % 22] + "c"
        hostile = ".".join([label] * (2 + number % 2)) + ".internax"
        assert not names.cover(from_text(hostile))
        assert not names.touch(from_text(f"*.{hostile}"))
        assert not text.fullmatch(hostile)
    for label in ("a" * 5_000, "a-" * 5_000):
        assert not text.fullmatch(f"{label}.{label}.internax")
