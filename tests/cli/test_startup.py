"""Whatever answers in a PostgreSQL's place: an `Answer` or an `OSError`, and no waiting for what will not come."""

import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.cli.startup import Answer, log_in, offers_tls


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def answered(words: bytes) -> tuple[Answer, bytes]:
    """What is made of these words, and what was said."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(words)
        theirs.shutdown(socket.SHUT_WR)
        answer = log_in(ours, "epoch_user", "production")
        return answer, theirs.recv(1024)


YES = message(b"R", bytes(4))
ERROR = message(b"E", b"SFATAL\0C28000\0Mno such user\0\0")


def test_a_user_is_let_in_and_leaves() -> None:
    words = YES + message(b"S", b"TimeZone\0UTC\0") + message(b"K", bytes(8)) + message(b"Z", b"I")
    answer, said = answered(words)
    assert answer == Answer()
    assert said.endswith(b"user\0epoch_user\0database\0production\0\0" + b"X\0\0\0\4")


def test_a_refusal_says_why_before_a_yes_and_behind_it() -> None:
    for words in (ERROR, YES + ERROR):
        assert answered(words)[0] == Answer(refusal="no such user", code="28000")
    assert answered(message(b"E", b"\0"))[0].refusal == "it does not say why"
    assert answered(message(b"E", b"Cx\0RClientAuthentication\0\0"))[0].routine == "ClientAuthentication"


def test_who_wants_something_else_is_not_given_it() -> None:
    assert answered(message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"))[0].asks


@pytest.mark.parametrize("length", [-1, 0, 3, 1 << 17, (1 << 31) - 1])
def test_lengths_that_are_none(length: int) -> None:
    assert "not PostgreSQL's protocol" in str(answered(b"R" + struct.pack("!i", length))[0].refusal)


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_words_at_all(words: bytes) -> None:
    try:
        answered(words)
    except OSError as error:
        assert "hangs up" in str(error)  # noqa: PT017


@settings(deadline=None)
@given(st.binary(max_size=3))
def test_any_answer_to_the_wish_for_tls(words: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(words)
        theirs.shutdown(socket.SHUT_WR)
        assert offers_tls(ours) is {b"S": True, b"N": False}.get(words[:1])
