"""A random walk of good requests by several accounts, with clocks, restarts and persons: lessons 6, 7, 19 and 29.

Whatever the order of things, nothing is ever seen to change in a way that the tables of states do not have, no order
has two certificates, nobody is shown another's objects, and nothing waits for ever.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.fuzz.scene import BASE, Answer, Player, Scene
from tests.wire import PrivateKey, csr, jwk_of, new_key, sign

from privet.acme.encoding import to_base64url
from privet.acme.problems import Problem, ProblemType
from privet.acme.status import ACCOUNT, AUTHORIZATION, CHALLENGE, ORDER, Status, Table
from privet.ca.certificates import KIND, Certificate
from privet.server.approval import NotPending
from privet.server.limits import Limits
from privet.server.records import Account, Authorization, Kind, Order

NAMES = ["a.internal", "b.internal", "*.a.internal", "10.0.0.1"]
NOBODY = "0" * 32


@dataclass
class Oracle:
    """A validator that answers as the walk says, at once or after a few turns of the loop."""

    answer: bool | Exception = True
    turns: int = 0

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass(eq=False)
class Ordered:
    """An order as its owner knows it, and the keys it was finalized with."""

    owner: Player
    names: list[str]
    url: str
    authorizations: list[str] = field(repr=False)
    finalize: str = field(repr=False)
    expires: datetime = field(repr=False)
    keys: list[PrivateKey] = field(default_factory=list, repr=False)
    certificate: str | None = None
    chain: list[x509.Certificate] = field(default_factory=list, repr=False)


@dataclass(eq=False)
class Ahead:
    """An authorization made by newAuthz."""

    owner: Player
    url: str


def leads_to(table: Table, before: str, after: str) -> bool:
    reached, coming = set(), {Status(before)}
    while coming:
        reached |= coming
        coming = {end for (start, _), end in table.items() if start in coming} - reached
    return Status(after) in reached


def id_of(url: str) -> str:
    return url.rsplit("/", 1)[1]


def one_of(things: str) -> st.SearchStrategy[Any]:
    """One of those that the walk has met so far."""
    return st.runner().flatmap(lambda walk: st.sampled_from(getattr(walk, things)))


PLAYERS, ORDERS, THINGS = one_of("players"), one_of("orders"), one_of("things")


class Walk(RuleBasedStateMachine):
    @initialize(mode=st.sampled_from(["trusts", "believes", "asks an oracle", "asks a slow oracle", "asks a person"]))
    def begin(self, mode: str) -> None:
        self.mode = mode
        self.oracle = Oracle(turns=3 if mode == "asks a slow oracle" else 0)
        arguments: dict[str, dict[str, Any]] = {
            "trusts": {"auto_approve": True},
            "believes": {"auto_approve": True, "ask_challenges": True},
            "asks an oracle": {"challenge_validator": self.oracle},
            "asks a slow oracle": {"challenge_validator": self.oracle, "limits": Limits(patience=timedelta(0))},
            "asks a person": {},
        }
        self.scene = Scene(**arguments[mode])
        self.seen: dict[tuple[str, str], str] = {}
        self.facts: dict[str, object] = {}
        self.certificates: dict[str, str] = {}
        self.players: list[Player] = []
        self.orders: list[Ordered] = []
        self.things: list[Ordered | Ahead] = []
        for name in NAMES[:2]:
            self.register()
            self.new_order(self.players[-1], [name])

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            try:
                self.nothing_waits_for_ever()
            finally:
                self.scene.close()

    # What is seen

    def notice(self, table: Table, thing: str, status: str) -> None:
        """A status is what the last one led to."""
        before = self.seen.get((thing, str(id(table))), status)
        assert leads_to(table, before, status), f"{thing} was {before} and is {status}"
        self.seen[thing, str(id(table))] = status

    def fact(self, name: str, value: object) -> None:
        """What never changes, once it is there."""
        assert self.facts.setdefault(name, value) == value, name

    def notice_order(self, ordered: Ordered, document: dict[str, Any]) -> str:
        status = document["status"]
        assert isinstance(status, str)
        self.notice(ORDER, ordered.url, status)
        for name in ("identifiers", "authorizations", "finalize", "expires"):
            self.fact(f"{ordered.url} {name}", document[name])
        assert ("certificate" in document) == (status == "valid")
        if "certificate" in document:
            self.fact(f"{ordered.url} certificate", document["certificate"])
            ordered.certificate = document["certificate"]
        assert "error" not in document or status == "invalid"
        return status

    def notice_challenge(self, document: dict[str, Any]) -> str:
        status = document["status"]
        assert isinstance(status, str)
        self.notice(CHALLENGE, document["url"], status)
        self.fact(f"{document['url']} token", (document["type"], document["token"]))
        assert ("validated" in document) == (status == "valid")
        assert ("error" in document) == (status == "invalid")
        return status

    def notice_authorization(self, url: str, document: dict[str, Any]) -> str:
        status = document["status"]
        assert isinstance(status, str)
        self.notice(AUTHORIZATION, url, status)
        self.fact(f"{url} identifier", (document["identifier"], document.get("wildcard")))
        for challenge in document["challenges"]:
            self.notice_challenge(challenge)
        return status

    # Who is asking

    def account(self, player: Player) -> Account | None:
        record = self.scene.store.get(Kind.ACCOUNT, id_of(player.kid or ""))
        return Account.from_record(record) if record else None

    def is_good(self, player: Player, answer: Answer) -> bool:
        """Whether an answer is one to an account that may ask; one that may not is told so, and nothing else."""
        account = self.account(player)
        if account is None or account.expires <= self.scene.clock():
            assert answer.problem == "accountDoesNotExist", answer
            return False
        if account.status is not Status.VALID:
            assert (answer.status, answer.problem) == (401, "unauthorized"), answer
            return False
        assert answer.status != 401, answer
        assert answer.problem != "accountDoesNotExist", answer
        return True

    def is_there(self, player: Player, answer: Answer, until: datetime) -> bool:
        """Whether the answer is about a thing of one's own that is still kept."""
        if not self.is_good(player, answer):
            return False
        if answer.status == 404:
            assert self.scene.clock() >= until, "gone before its time"
            return False
        return True

    # Accounts

    @rule()
    def register(self) -> None:
        player = Player(self.scene)
        answer = player.register(contact=["mailto:a@example.org"])
        assert answer.status == 201
        self.notice(ACCOUNT, player.kid or "", answer.document["status"])
        self.players.append(player)

    @rule(player=PLAYERS)
    def register_again(self, player: Player) -> None:
        account, kid = self.account(player), player.kid
        answer = player.register()
        if account is None or account.expires <= self.scene.clock():
            assert (answer.status, player.kid == kid) == (201, False)
        elif account.status is not Status.VALID:
            assert (answer.status, answer.problem) == (401, "unauthorized")
            player.kid = kid
        else:
            assert (answer.status, player.kid) == (200, kid)

    @rule(player=PLAYERS)
    def look_at_account(self, player: Player) -> None:
        answer = player.post(player.kid or "")
        if self.is_good(player, answer):
            self.notice(ACCOUNT, player.kid or "", answer.document["status"])
        answer = player.post(f"{player.kid}/orders")
        if self.is_good(player, answer):
            for url in answer.document["orders"]:
                record = self.scene.store.get(Kind.ORDER, id_of(url))
                assert record is not None
                assert Order.from_record(record).account == id_of(player.kid or "")

    @rule(player=PLAYERS, chance=st.integers(0, 4))
    def deactivate_account(self, player: Player, chance: int) -> None:
        if chance:
            return  # too much of this, and there is nobody left
        if self.is_good(player, player.post(player.kid or "")):
            answer = player.post(player.kid or "", {"status": "deactivated"})
            assert (answer.status, answer.document["status"]) == (200, "deactivated")
            self.notice(ACCOUNT, player.kid or "", "deactivated")

    @rule(player=PLAYERS)
    def change_key(self, player: Player) -> None:
        new, url = new_key(), f"{BASE}/key-change"
        change = {"account": player.kid, "oldKey": jwk_of(player.key)}
        answer = player.post(url, sign(new, {"alg": "ES256", "url": url, "jwk": jwk_of(new)}, change))
        if self.is_good(player, answer):
            assert answer.status == 200
            # Lesson 9: the old key is worth nothing from now on.
            assert player.post(player.kid or "").problem == "unauthorized"
            player.key = new
            assert player.post(player.kid or "").status == 200

    @rule(player=PLAYERS, other=PLAYERS)
    def change_key_to_another_s(self, player: Player, other: Player) -> None:
        url = f"{BASE}/key-change"
        change = {"account": player.kid, "oldKey": jwk_of(player.key)}
        taken = self.account(other)
        if taken is None or taken.expires <= self.scene.clock():
            return
        answer = player.post(url, sign(other.key, {"alg": "ES256", "url": url, "jwk": jwk_of(other.key)}, change))
        if self.is_good(player, answer):
            assert (answer.status, answer.header("location")) == (409, other.kid)

    # Orders

    @rule(player=PLAYERS, names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True))
    def new_order(self, player: Player, names: list[str]) -> None:
        answer = player.order(*names)
        if not self.is_good(player, answer):
            return
        assert answer.status == 201
        document = answer.document
        ordered = Ordered(
            owner=player,
            names=names,
            url=answer.header("location") or "",
            authorizations=document["authorizations"],
            finalize=document["finalize"],
            expires=datetime.fromisoformat(document["expires"]),
        )
        status = self.notice_order(ordered, document)
        if self.mode == "trusts":
            assert status == "ready"
        for url in ordered.authorizations:
            self.look_at_authorization(player, url)
        self.orders.append(ordered)
        self.things.append(ordered)

    @rule(player=PLAYERS, name=st.sampled_from(["a.internal", "b.internal", "10.0.0.1"]))
    def authorize_ahead(self, player: Player, name: str) -> None:
        type = "ip" if name[0].isdigit() else "dns"
        answer = player.post(f"{BASE}/new-authz", {"identifier": {"type": type, "value": name}})
        if not self.is_good(player, answer):
            return
        assert answer.status == 201
        url = answer.header("location") or ""
        self.notice_authorization(url, answer.document)
        self.things.append(Ahead(player, url))

    def kept_until(self, ordered: Ordered) -> datetime:
        """A certificate is on record for a week longer than it is good for, its order as long (lesson 24)."""
        certificates = [each for each in self.issued() if each.request == id_of(ordered.url)]
        return max([ordered.expires, *(each.not_after + timedelta(days=7) for each in certificates)])

    @rule(ordered=ORDERS, steps=st.integers(1, 4))
    def go_on(self, ordered: Ordered, steps: int) -> None:
        """Do what a client would do next, and what a person would."""
        for _ in range(steps):
            match self.look(ordered):
                case "pending":
                    for number, url in enumerate(ordered.authorizations):
                        document = self.look_at_authorization(ordered.owner, url)
                        if document and document["status"] == "pending":
                            self.answer_challenge(ordered, number, "yes")
                            if self.mode == "asks a person":
                                self.person_decides(ordered, number, yes=True)
                case "ready":
                    self.finalize(ordered, 1)
                case "valid":
                    self.download(ordered)

    def look(self, ordered: Ordered) -> str | None:
        until = self.kept_until(ordered)
        answer = ordered.owner.post(ordered.url)
        if not self.is_there(ordered.owner, answer, until):
            return None
        status = self.notice_order(ordered, answer.document)
        if self.scene.clock() >= ordered.expires:
            assert status in ("invalid", "valid", "processing")
        else:
            self.compare(status, self.authorizations(ordered))
        return status

    def authorizations(self, ordered: Ordered) -> set[str]:
        documents = [self.look_at_authorization(ordered.owner, url) for url in ordered.authorizations]
        return {document["status"] if document else "gone" for document in documents}

    def compare(self, status: str, authorizations: set[str]) -> None:
        """§7.1.6: what the authorizations make of an order that has not expired."""
        if self.mode == "asks a slow oracle" or status in ("processing", "valid"):
            return  # things go on while we look, or nothing depends on them any more
        if authorizations == {"valid"}:
            assert status == "ready"
        else:
            assert status == ("pending" if authorizations <= {"valid", "pending"} else "invalid")

    def look_at_authorization(self, player: Player, url: str) -> dict[str, Any] | None:
        record = self.scene.store.get(Kind.AUTHORIZATION, id_of(url))
        answer = player.post(url)
        if not self.is_good(player, answer):
            return None
        if answer.status == 404:
            assert record is None or record.expires is None or record.expires <= self.scene.clock()
            return None
        status = self.notice_authorization(url, answer.document)
        if self.scene.clock() >= datetime.fromisoformat(answer.document["expires"]):
            assert status not in ("pending", "valid")
        return answer.document

    def pick(self, player: Player, urls: list[str], number: int) -> tuple[str, dict[str, Any] | None]:
        url = urls[number % len(urls)]
        return url, self.look_at_authorization(player, url)

    @rule(
        thing=THINGS,
        number=st.integers(0, 5),
        verdict=st.sampled_from(["yes", "yes", "yes", "no", "a problem", "an error"]),
    )
    def answer_challenge(self, thing: Ordered | Ahead, number: int, verdict: str) -> None:
        urls = thing.authorizations if isinstance(thing, Ordered) else [thing.url]
        _, document = self.pick(thing.owner, urls, number)
        if document is None or not document["challenges"]:
            return
        verdicts: dict[str, bool | Exception] = {
            "yes": True,
            "no": False,
            "a problem": Problem(ProblemType.DNS, "there is no such record"),
            "an error": RuntimeError("the validator is broken"),
        }
        self.oracle.answer = verdicts[verdict]
        before = document["status"]
        challenge = document["challenges"][number % len(document["challenges"])]
        answer = thing.owner.post(challenge["url"], {})
        if before in ("pending", "valid"):
            assert answer.status == 200, answer
        if answer.status == 200:
            status = self.notice_challenge(answer.document)
            assert answer.links("up") == [challenge["url"].replace("/chall/", "/authz/").rsplit(".", 1)[0]]
            if self.mode == "asks an oracle" and before == "pending" and challenge["status"] == "pending":
                assert status == ("valid" if verdict == "yes" else "invalid")
        else:
            assert (answer.status, answer.problem) == (400, "malformed")

    @rule(thing=THINGS, number=st.integers(0, 5), yes=st.booleans())
    def person_decides(self, thing: Ordered | Ahead, number: int, yes: bool) -> None:
        urls = thing.authorizations if isinstance(thing, Ordered) else [thing.url]
        id = id_of(urls[number % len(urls)])
        responder = self.scene.responder
        self.scene.rest()
        waiting = id in [each.id for each in self.scene.runner.run(responder.pending())]
        try:
            decided = self.scene.runner.run(responder.approve(id) if yes else responder.refuse(id, "no"))
        except NotPending:
            assert not waiting
        else:
            assert waiting
            assert decided.status is (Status.VALID if yes else Status.INVALID)

    @rule(thing=THINGS, number=st.integers(0, 5))
    def deactivate_authorization(self, thing: Ordered | Ahead, number: int) -> None:
        urls = thing.authorizations if isinstance(thing, Ordered) else [thing.url]
        url, document = self.pick(thing.owner, urls, number)
        if document is None:
            return
        answer = thing.owner.post(url, {"status": "deactivated"})
        if document["status"] in ("pending", "valid", "deactivated"):
            assert (answer.status, answer.document["status"]) == (200, "deactivated")
            self.notice_authorization(url, answer.document)
        else:
            assert (answer.status, answer.problem) == (400, "malformed")

    @rule(ordered=ORDERS, times=st.sampled_from([1, 1, 1, 2, 5]))
    def finalize(self, ordered: Ordered, times: int) -> None:
        """With as many requests at the same time, each with a key of its own."""
        self.scene.rest()
        status = self.look(ordered)
        if status is None:
            return
        until = self.kept_until(ordered)
        keys: list[PrivateKey] = [new_key() for _ in range(times)]
        payloads = [{"csr": to_base64url(csr(*ordered.names, key=key))} for key in keys]
        path = ordered.finalize.removeprefix(BASE)
        answers = self.scene.ask_together(path, [ordered.owner.signed(ordered.finalize, each) for each in payloads])
        good = [answer for answer in answers if answer.status == 200]
        for answer in answers:
            if answer.status != 200 and self.is_there(ordered.owner, answer, until):
                assert (answer.status, answer.problem) == (403, "orderNotReady")
        assert len(good) == (1 if status == "ready" else 0)
        for answer in good:
            assert self.notice_order(ordered, answer.document) == "valid"
            ordered.keys = keys

    @rule(ordered=ORDERS)
    def download(self, ordered: Ordered) -> None:
        if ordered.certificate is None:
            return
        until = self.kept_until(ordered)
        answer = ordered.owner.post(ordered.certificate)
        if self.is_there(ordered.owner, answer, until):
            ordered.chain = x509.load_pem_x509_certificates(answer.body)
            self.fact(ordered.certificate, answer.body)
            leaf = ordered.chain[0]
            assert leaf.public_key() in [key.public_key() for key in ordered.keys]
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            found = {str(each) for each in names.get_values_for_type(x509.IPAddress)}
            assert found | set(names.get_values_for_type(x509.DNSName)) == set(ordered.names)
            leaf.verify_directly_issued_by(self.scene.ca.root_cert)

    @rule(
        ordered=ORDERS,
        by=st.sampled_from(["another", "another", "another", "owner", "its key", "another's key"]),
        other=PLAYERS,
    )
    def revoke(self, ordered: Ordered, by: str, other: Player) -> None:
        """Lesson 5."""
        if not ordered.chain:
            self.go_on(ordered, 3)
        if not ordered.chain:
            return
        leaf = ordered.chain[0]
        revoker = {"owner": ordered.owner, "another": other}.get(by) or Player(
            self.scene,
            next(key for key in ordered.keys if key.public_key() == leaf.public_key())
            if by == "its key"
            else new_key(),
        )
        certificate = self.scene.ca.certificate(leaf.serial_number)
        payload = {"certificate": to_base64url(leaf.public_bytes(Encoding.DER)), "reason": 4}
        answer = revoker.post(f"{BASE}/revoke-cert", payload)
        if revoker.kid and not self.is_good(revoker, answer):
            return
        if certificate is None:
            assert answer.status == 404 or answer.problem == "malformed"
            assert self.scene.clock() >= leaf.not_valid_after_utc + timedelta(days=7)
        elif not self.may_revoke(revoker, ordered, leaf):
            assert answer.status == 403, answer
        elif certificate.revoked:
            assert answer.problem == "alreadyRevoked"
        else:
            assert answer.status == 200, answer

    def may_revoke(self, revoker: Player, ordered: Ordered, leaf: x509.Certificate) -> bool:
        """§7.6: the account that ordered it, one that holds authorizations for all its names, the certificate's key."""
        if revoker.kid is None:
            return revoker.key.public_key() == leaf.public_key()
        own = self.scene.store.find(KIND, f"serial:{leaf.serial_number:x}")[0]
        if Certificate.from_record(own).requester == id_of(revoker.kid):
            return True
        held = {
            each.identifier.value
            for each in map(Authorization.from_record, self.scene.store.find(Kind.AUTHORIZATION, limit=10_000))
            if each.account == id_of(revoker.kid) and each.settle(self.scene.clock()).status is Status.VALID
        }
        return set(ordered.names) <= held

    @rule(ordered=ORDERS, other=PLAYERS)
    def peek(self, ordered: Ordered, other: Player) -> None:
        """Lessons 6 and 28: to another account it is as if nothing of this were there."""
        if other.kid == ordered.owner.kid or not self.is_good(other, other.post(other.kid or "")):
            return
        self.go_on(ordered, 3)
        owner = ordered.owner.kid or ""
        challenges = [f"{url.replace('/authz/', '/chall/')}.dns-01" for url in ordered.authorizations]
        urls = [ordered.url, *ordered.authorizations, *challenges, owner, f"{owner}/orders"]
        urls += [ordered.certificate] if ordered.certificate else []
        for url in urls:
            missing = "/".join(
                [*url.split("/")[:4], url.split("/")[4].replace(url.split("/")[4][:32], NOBODY), *url.split("/")[5:]]
            )
            for payload in (None, {}, {"status": "deactivated"}):
                there, not_there = (other.post(each, payload) for each in (url, missing))
                assert (there.status, there.document) == (not_there.status, not_there.document), url
                assert there.status >= 400
        request = {"csr": to_base64url(csr(*ordered.names))}
        missing = f"{BASE}/finalize/{NOBODY}"
        there, not_there = other.post(ordered.finalize, request), other.post(missing, request)
        assert (there.status, there.document) == (not_there.status, not_there.document)
        assert there.status == 404

    # Time and trouble

    @rule(
        span=st.sampled_from([1, 11, 70, 70, 3600, 3600, 6 * 3600, 25 * 3600]),
        often=st.sampled_from([1, 1, 1, 1, 8, 31]),
    )
    def forward(self, span: int, often: int) -> None:
        self.scene.clock.forward(timedelta(seconds=span * often))

    @rule(trouble=st.sampled_from(["rest", "restart", "prune"]))
    def meet_trouble(self, trouble: str) -> None:
        match trouble:
            case "rest":
                self.scene.rest()
            case "restart":
                self.scene.restart()
            case "prune":
                self.prune()

    def prune(self) -> None:
        now = self.scene.clock()
        before = self.issued()
        while self.scene.store.prune(now, limit=7):
            pass
        gone = {each.id for each in before} - {each.id for each in self.issued()}
        assert all(each.not_after + timedelta(days=7) <= now for each in before if each.id in gone)

    # Laws

    def issued(self) -> list[Certificate]:
        return [Certificate.from_record(record) for record in self.scene.store.find(KIND, limit=10_000)]

    @invariant()
    def what_is_kept_changes_as_the_tables_say(self) -> None:
        if not hasattr(self, "scene"):
            return
        for kind, table in ((Kind.ACCOUNT, ACCOUNT), (Kind.ORDER, ORDER), (Kind.AUTHORIZATION, AUTHORIZATION)):
            for record in self.scene.store.find(kind, limit=10_000):
                body = json.loads(record.body)
                self.notice(table, f"{kind} {record.id}", body["status"])
                if kind is Kind.AUTHORIZATION:
                    for challenge in Authorization.from_record(record).challenges:
                        self.notice(CHALLENGE, f"{record.id} {challenge.type}", challenge.status)

    @invariant()
    def no_order_has_two_certificates(self) -> None:
        if not hasattr(self, "scene"):
            return
        for each in self.issued():
            assert each.request is not None
            assert self.certificates.setdefault(each.request, each.id) == each.id
            record = self.scene.store.get(Kind.ORDER, each.request)
            assert record is not None, "an order is kept as long as its certificate"
            order = Order.from_record(record)
            assert order.certificate == each.id
            assert (order.status is Status.VALID) == (each.status in ("valid", "revoked"))

    def nothing_waits_for_ever(self) -> None:
        """Lesson 29: after some time and a few looks, whatever was begun has come to an end."""
        self.oracle.answer = True
        for _ in range(3):
            self.scene.rest()
            self.scene.clock.forward(timedelta(minutes=2))
            for record in self.scene.store.find(Kind.ORDER, limit=10_000):
                order = Order.from_record(record)
                account = self.scene.store.get(Kind.ACCOUNT, order.account)
                for player in self.everybody(order.account if account else ""):
                    player.post(f"{BASE}/order/{order.id}")
        self.scene.rest()
        if self.mode == "asks a person":
            return
        now = self.scene.clock()
        for record in self.scene.store.find(Kind.AUTHORIZATION, limit=10_000):
            found = Authorization.from_record(record).settle(now)
            orders = [Order.from_record(each) for each in self.scene.store.find(Kind.ORDER, limit=10_000)]
            asked = any(found.id in each.authorizations and self.may_ask(each.account) for each in orders)
            if found.status is Status.PENDING and asked:
                assert all(each.status is not Status.PROCESSING for each in found.challenges), found

    def may_ask(self, account: str) -> bool:
        record = self.scene.store.get(Kind.ACCOUNT, account)
        found = Account.from_record(record) if record else None
        return found is not None and found.status is Status.VALID and found.expires > self.scene.clock()

    def everybody(self, account: str) -> Iterable[Player]:
        return [
            each for each in self.bundle("players") if isinstance(each, Player) and id_of(each.kid or "/") == account
        ]


TestWalk = pytest.mark.timeout(600)(Walk.TestCase)  # hypothesis takes up to five minutes to find a shorter way
TestWalk.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
