"""Looking names up: with a nameserver that is well, with one that is not, and with somebody in between."""

import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.validation.nameserver import Answering, Nameserver, fails
from tests.validation.scene import CANARY, Scene, patiently
from tests.validation.town import datagrams, never

from privet.validation import LookupFailed, NoSuchName, Resolver
from privet.validation.resolver import (
    Answer,
    read_answer,
    read_message,
    read_nameserver,
    system_nameservers,
)
from privet.validation.trail import Trail

NAME = "www.internal"


def texts(scene: Scene, name: str = NAME, **options: object) -> tuple[bytes, ...]:
    return scene.run(scene.resolver(**options).texts(name, Trail()))


def failure(scene: Scene, name: str = NAME, **options: object) -> str:
    """Why a look-up failed. Nothing of an answer is in it."""
    with pytest.raises(LookupFailed) as caught:
        texts(scene, name, **options)
    assert CANARY not in str(caught.value)
    return str(caught.value)


def test_the_strings_of_a_record_are_joined_and_records_are_not(scene: Scene) -> None:
    scene.nameserver.add(NAME, "TXT", '"one" "and" "a half"', '"two"')
    assert sorted(texts(scene)) == [b"oneanda half", b"two"]


def test_addresses_of_both_kinds(scene: Scene) -> None:
    scene.nameserver.add(NAME, "A", "10.1.1.1", "10.1.1.2")
    scene.nameserver.add(NAME, "AAAA", "fd00::1")
    found = scene.run(scene.resolver().addresses(NAME, Trail()))
    assert {str(address) for address in found} == {"10.1.1.1", "10.1.1.2", "fd00::1"}
    assert sorted(scene.nameserver.asked) == [f"A {NAME}", f"AAAA {NAME}"]


@pytest.mark.parametrize("broken", ["A", "AAAA"])
def test_one_kind_of_address_is_enough(scene: Scene, broken: str) -> None:
    def half(query: dns.message.Message, tcp: bool) -> bytes | list[bytes]:
        ill = query.question[0].rdtype.name == broken
        return fails(dns.rcode.SERVFAIL)(query, tcp) if ill else scene.nameserver.answer(query, tcp)

    scene.nameserver.add(NAME, "A", "10.1.1.1")
    scene.nameserver.add(NAME, "AAAA", "fd00::1")
    scene.nameserver.answering[NAME] = half
    assert len(scene.run(scene.resolver().addresses(NAME, Trail()))) == 1


def test_no_address_is_not_known_while_one_kind_cannot_be_had(scene: Scene) -> None:
    def half(query: dns.message.Message, tcp: bool) -> bytes | list[bytes]:
        ill = query.question[0].rdtype.name == "A"
        return fails(dns.rcode.SERVFAIL)(query, tcp) if ill else scene.nameserver.answer(query, tcp)

    scene.nameserver.add(NAME, "TXT", '"here"')
    scene.nameserver.answering[NAME] = half
    with pytest.raises(LookupFailed, match="SERVFAIL") as caught:
        scene.run(scene.resolver().addresses(NAME, Trail()))
    assert not isinstance(caught.value, NoSuchName)


def test_aliases_are_followed_in_one_answer_and_from_one_to_the_next(scene: Scene) -> None:
    def alias_alone(query: dns.message.Message, tcp: bool) -> bytes:
        """As a nameserver answers that knows this zone and no other."""
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", "CNAME", "elsewhere.internal."))
        return reply.to_wire()

    scene.nameserver.answering[NAME] = alias_alone
    scene.nameserver.add("elsewhere.internal", "CNAME", "there.internal.")
    scene.nameserver.add("there.internal", "TXT", '"found"')
    trail = Trail()
    assert scene.run(scene.resolver().texts(NAME, trail)) == (b"found",)
    assert [step.what for step in trail.steps] == [f"TXT {NAME}", "TXT elsewhere.internal"]


def test_what_is_too_long_for_a_datagram_comes_by_tcp(scene: Scene) -> None:
    """A record of sixty kilobytes is read, and is merely wrong."""
    scene.nameserver.add(NAME, "TXT", *(f'"{number:03}{"x" * 250}"' for number in range(230)))
    assert len(texts(scene)) == 230
    assert scene.nameserver.asked == [f"TXT {NAME}"] * 2


def test_the_next_nameserver_is_asked_when_one_does_not_answer(scene: Scene) -> None:
    scene.nameserver.add(NAME, "TXT", '"here"')
    nowhere = f"{scene.town.client.address}:{scene.town.port(53)}"
    resolver = Resolver([nowhere, scene.nameserver.address], timeout=10)
    trail = Trail()
    assert scene.run(resolver.texts(NAME, trail)) == (b"here",)
    assert [step.target for step in trail.steps] == [nowhere, scene.nameserver.address]


def test_a_nameserver_gets_a_second_chance(scene: Scene) -> None:
    answers: list[Answering] = [fails(dns.rcode.SERVFAIL), scene.nameserver.answer]
    scene.nameserver.answering[NAME] = lambda query, tcp: answers.pop(0)(query, tcp)
    scene.nameserver.add(NAME, "TXT", '"here"')
    assert texts(scene) == (b"here",)


def test_a_name_that_is_not_there_and_one_without_the_record(scene: Scene) -> None:
    scene.nameserver.add("other.internal", "A", "10.1.1.1")
    assert failure(scene) == "there is no such name"
    assert failure(scene, "other.internal") == "there is no TXT record"
    assert scene.nameserver.asked == [f"TXT {NAME}", "TXT other.internal"]


def test_a_name_that_is_too_long_to_ask_about(scene: Scene) -> None:
    assert "too long" in failure(scene, "_acme-challenge." + ".".join(["a" * 63] * 3 + ["b" * 61]))
    assert not scene.nameserver.asked


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"])
def test_an_error_is_not_the_same_as_nothing(scene: Scene, rcode: str) -> None:
    scene.nameserver.answering[NAME] = fails(dns.rcode.from_text(rcode))
    assert failure(scene) == f"the nameserver {scene.nameserver.address} answered {rcode}"


def bare(query: dns.message.Message, *records: str) -> dns.message.Message:
    reply = dns.message.make_response(query)
    for record in records:
        name, type, *value = record.split()
        reply.answer.append(dns.rrset.from_text(name, 60, "IN", type, " ".join(value)))
    return reply


def with_another_id(query: dns.message.Message, tcp: bool) -> bytes:
    reply = bare(query, f"{NAME}. TXT {CANARY}")
    reply.id ^= 1
    return reply.to_wire()


def to_another_question(query: dns.message.Message, tcp: bool) -> bytes:
    reply = bare(dns.message.make_query("other.internal", "TXT", id=query.id), f"other.internal. TXT {CANARY}")
    return reply.to_wire()


def to_another_type(query: dns.message.Message, tcp: bool) -> bytes:
    return bare(dns.message.make_query(NAME, "A", id=query.id), f"{NAME}. TXT {CANARY}").to_wire()


def the_query_itself(query: dns.message.Message, tcp: bool) -> bytes:
    return query.to_wire()


def cut_in_the_middle(query: dns.message.Message, tcp: bool) -> bytes:
    return bare(query, f"{NAME}. TXT {CANARY}").to_wire()[:-20]


def with_more_than_it_says(query: dns.message.Message, tcp: bool) -> bytes:
    return bare(query, f"{NAME}. TXT {CANARY}").to_wire() + b"more"


def with_a_pointer_to_itself(query: dns.message.Message, tcp: bool) -> bytes:
    header = struct.pack("!HHHHHH", query.id, 0x8180, 1, 1, 0, 0)
    question = query.to_wire()[12 : 12 + len(NAME) + 2 + 4]
    place = 0xC000 | len(header + question)
    return header + question + struct.pack("!HHHIH", place, 16, 1, 60, 0)


def with_records_it_does_not_have(query: dns.message.Message, tcp: bool) -> bytes:
    return struct.pack("!HHHHHH", query.id, 0x8180, 1, 65535, 0, 0) + query.to_wire()[12:]


STRANGE: dict[str, Answering] = {
    "with another id": with_another_id,
    "to another question": to_another_question,
    "to a question for another type": to_another_type,
    "that is the query itself": the_query_itself,
    "cut in the middle": cut_in_the_middle,
    "with more than it says": with_more_than_it_says,
    "with a name that points to itself": with_a_pointer_to_itself,
    "with records it does not have": with_records_it_does_not_have,
    "of no bytes": lambda query, tcp: b"",
    "of noise": lambda query, tcp: bytes(range(256)),
}


@pytest.mark.parametrize("answering", STRANGE.values(), ids=STRANGE)
def test_an_answer(scene: Scene, answering: Answering) -> None:
    """It counts for nothing, and the nameserver might as well have been silent."""
    scene.nameserver.answering[NAME] = answering
    assert "gave no usable answer" in failure(scene, timeout=0.1)


@pytest.mark.parametrize("answering", STRANGE.values(), ids=STRANGE)
def test_the_right_answer_is_taken_behind_one(scene: Scene, answering: Answering) -> None:
    """Somebody who cannot read our queries guesses ahead of the nameserver."""
    scene.nameserver.add(NAME, "TXT", '"here"')

    def both(query: dns.message.Message, tcp: bool) -> list[bytes]:
        strange = answering(query, tcp)
        assert isinstance(strange, bytes)
        return [strange, scene.nameserver.answer(query, tcp)]

    scene.nameserver.answering[NAME] = both
    assert texts(scene) == (b"here",)


def test_a_flood_of_guesses_ends_the_question(scene: Scene) -> None:
    def flood(query: dns.message.Message, tcp: bool) -> list[bytes]:
        reply = bare(query, f"{NAME}. TXT {CANARY}")
        guesses = []
        for _ in range(60):
            reply.id = (reply.id + 1) % 65536
            guesses.append(reply.to_wire())
        return guesses

    scene.nameserver.answering[NAME] = flood
    assert "drowned out" in failure(scene)


def test_an_answer_from_another_address_is_not_heard(scene: Scene) -> None:
    """Right in every bit, but from the wrong host."""
    scene.nameserver.add(NAME, "TXT", CANARY)

    async def send(answer: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((scene.town.neighbour.address, scene.town.port(53)))
            sock.sendto(answer, scene.nameserver.sender)

    def by_the_neighbour(query: dns.message.Message, tcp: bool) -> list[bytes]:
        scene.town.neighbour.run(send(scene.nameserver.answer(query, tcp)))
        return []

    scene.nameserver.answering[NAME] = by_the_neighbour
    assert "gave no usable answer" in failure(scene, timeout=0.1)


def test_records_of_other_names_are_not_ours(scene: Scene) -> None:
    scene.nameserver.answering[NAME] = lambda query, tcp: bare(
        query, f"other.internal. TXT {CANARY}", f"other.internal. CNAME {NAME}."
    ).to_wire()
    assert failure(scene) == "there is no TXT record"


def test_aliases_in_a_circle_within_an_answer(scene: Scene) -> None:
    scene.nameserver.answering[NAME] = lambda query, tcp: bare(
        query, f"{NAME}. CNAME {CANARY}.internal.", f"{CANARY}.internal. CNAME {NAME}."
    ).to_wire()
    assert "in a circle" in failure(scene)


def test_an_alias_of_itself(scene: Scene) -> None:
    scene.nameserver.answering[NAME] = lambda query, tcp: bare(query, f"{NAME}. CNAME {NAME}.").to_wire()
    assert "in a circle" in failure(scene)


def chain(to: Callable[[str], str]) -> Answering:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        name = query.question[0].name.to_text(omit_final_dot=True)
        return bare(query, f"{name}. CNAME {to(name)}.").to_wire()

    return answering


def test_aliases_in_a_circle_from_answer_to_answer(scene: Scene) -> None:
    there, back = chain(lambda _: "b.internal"), chain(lambda _: NAME)
    scene.nameserver.answering |= {NAME: there, "b.internal": back}
    assert "in a circle" in failure(scene)
    assert len(scene.nameserver.asked) == 2


def test_aliases_without_end_from_answer_to_answer(scene: Scene) -> None:
    for number in range(20):
        scene.nameserver.answering[f"{number}.internal"] = chain(lambda name: f"{int(name.split('.')[0]) + 1}.internal")
    assert "more than 8 aliases" in failure(scene, "0.internal")
    assert len(scene.nameserver.asked) == 9


def test_aliases_without_end_within_an_answer(scene: Scene) -> None:
    for number in range(15):
        scene.nameserver.add(f"{number}.internal", "CNAME", f"{number + 1}.internal.")
    scene.nameserver.add("15.internal", "TXT", CANARY)
    assert "more than 8 aliases" in failure(scene, "0.internal")


def test_an_alias_of_nothing(scene: Scene) -> None:
    scene.nameserver.add(NAME, "CNAME", f"{CANARY}.internal.")
    assert failure(scene) == "it is an alias of a name that is not there"


def truncated(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.TC
    return reply.to_wire()


def test_truncated_and_then_nobody_at_tcp(scene: Scene) -> None:
    """By UDP it says there is more; by TCP it hangs up in the middle of it."""
    scene.nameserver.answering[NAME] = lambda query, tcp: [] if tcp else truncated(query)
    assert "broke off its answer" in failure(scene)


def test_truncated_and_no_tcp_at_all(scene: Scene) -> None:
    address, port = scene.town.neighbour.address, scene.town.port(53)
    server = datagrams(address, port, lambda data, sender: [truncated(dns.message.from_wire(data))])
    scene.town.neighbour.run(server.__aenter__())
    try:
        with pytest.raises(LookupFailed, match="cannot be reached: connection refused"):
            scene.run(Resolver([f"{address}:{port}"], timeout=10).texts(NAME, Trail()))
    finally:
        scene.town.neighbour.run(server.__aexit__(None, None, None))


def test_truncated_for_ever(scene: Scene) -> None:
    scene.nameserver.answering[NAME] = lambda query, tcp: truncated(query)
    assert "cut its answer short by TCP as well" in failure(scene)


def test_a_referral_is_not_the_same_as_nothing(scene: Scene) -> None:
    """From a nameserver of the zone above, say, which knows nothing of this one but where it is."""

    def refers(query: dns.message.Message, tcp: bool) -> bytes:
        reply = dns.message.make_response(query)
        reply.authority.append(dns.rrset.from_text("www.internal.", 60, "IN", "NS", f"{CANARY}.internal."))
        return reply.to_wire()

    scene.nameserver.answering[NAME] = refers
    assert "refers to other nameservers" in failure(scene)


def test_something_else_by_tcp(scene: Scene) -> None:
    scene.nameserver.answering[NAME] = lambda query, tcp: with_another_id(query, tcp) if tcp else truncated(query)
    assert "something else than the answer" in failure(scene)


def test_silence_by_tcp(scene: Scene) -> None:
    silent = Nameserver(scene.town.neighbour, scene.town.port(53), by_tcp=never)
    silent.answering[NAME] = lambda query, tcp: truncated(query)
    with silent.running(), pytest.raises(LookupFailed, match="gave no usable answer"):
        scene.run(Resolver([silent.address], timeout=0.2).texts(NAME, Trail()))


def test_a_look_up_ends_in_its_time_whatever_each_answer_takes(scene: Scene) -> None:
    scene.nameserver.answering[NAME] = lambda query, tcp: []
    assert "took longer than 0.3 s" in failure(scene, timeout=0.2, lifetime=0.3)


def test_letter_case_is_no_difference(scene: Scene) -> None:
    scene.nameserver.answering[NAME] = lambda query, tcp: bare(query, f"{NAME.upper()}. TXT here").to_wire()
    assert texts(scene) == (b"here",)


@pytest.mark.parametrize(
    ("text", "nameserver"),
    [
        ("10.0.0.53", ("10.0.0.53", 53)),
        ("10.0.0.53:5353", ("10.0.0.53", 5353)),
        ("fd00::53", ("fd00::53", 53)),
        ("[fd00::53]", ("fd00::53", 53)),
        ("[fd00::53]:5353", ("fd00::53", 5353)),
    ],
)
def test_nameservers_are_written_as_usual(text: str, nameserver: tuple[str, int]) -> None:
    assert read_nameserver(text) == nameserver
    assert Resolver([text]).nameservers == (nameserver,)


@pytest.mark.parametrize(
    "text", ["", "ns.internal", "10.0.0.53:", "10.0.0.53:x", "10.0.0.53:0", "10.0.0.53:65536", "1.1"]
)
def test_what_is_no_nameserver(text: str) -> None:
    with pytest.raises(ValueError, match="is not a nameserver such as"):
        Resolver([text])


def test_a_resolver_without_nameservers() -> None:
    with pytest.raises(ValueError, match="needs a nameserver"):
        Resolver([])
    with pytest.raises(ValueError, match="list of addresses"):
        Resolver("10.0.0.53")


def test_the_nameservers_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# mine\nsearch internal\nnameserver 10.0.0.53\n nameserver fd00::53 \noptions edns0\n")
    assert system_nameservers(path) == ["10.0.0.53", "fd00::53"]
    path.write_text("search internal\n")
    assert system_nameservers(path) == ["127.0.0.1"]
    assert system_nameservers(tmp_path / "nothing") == ["127.0.0.1"]
    assert Resolver().nameservers


QUERY = dns.message.make_query(NAME, "TXT", id=4711)
ASKED = dns.name.from_text(NAME)
GOOD = bare(QUERY, f"{NAME}. CNAME b.internal.", "b.internal. TXT here").to_wire()


def any_answer(wire: bytes) -> None:
    """The law: records, an alias, nothing, or `LookupFailed`."""
    message = read_message(wire, QUERY)
    if message is None:
        return
    with contextlib.suppress(LookupFailed):
        assert isinstance(read_answer(message, ASKED, dns.rdatatype.TXT), Answer)


@patiently
@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_none(data: bytes) -> None:
    any_answer(data)
    any_answer(GOOD[:12] + data)


@patiently
@given(st.lists(st.tuples(st.integers(2, len(GOOD) - 1), st.integers(0, 255)), max_size=4))
def test_a_good_answer_bent_anywhere_is_an_answer_or_none(changes: list[tuple[int, int]]) -> None:
    bent = bytearray(GOOD)
    for place, byte in changes:
        bent[place] = byte
    any_answer(bytes(bent))
