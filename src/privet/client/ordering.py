"""An order from its beginning to its certificate (RFC 8555 §7.4, §7.5): what the server asks for on the way is done.

Its law: proofs are given for the names that were ordered and for no others, by handlers that are touched only then, and
whatever was put up is taken down again.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from privet.acme.challenges import key_authorization
from privet.acme.encoding import to_base64url
from privet.acme.identifiers import Identifier
from privet.acme.problems import Problem, ProblemType
from privet.client.account import Account
from privet.client.errors import ClientError, received_problem
from privet.client.handlers import ANY, ChallengeHandler, check_token
from privet.client.issued import Issued, read_chain
from privet.client.session import Resource, Session, text_of

log = logging.getLogger("privet.client")

_CHAIN = "application/pem-certificate-chain"
_ALTERNATES_MAX = 10


class _Proof(NamedTuple):
    """A proof for one authorization, and who puts it up."""

    handler: ChallengeHandler
    authorization: str
    challenge: str
    identifier: str
    token: str
    key_authorization: str

    async def present(self) -> None:
        try:
            await self.handler.present(self.identifier, self.token, self.key_authorization)
        except (ClientError, Problem):
            raise
        except Exception as error:
            kind = self.handler.challenge_type
            raise ClientError(f"the handler for {kind} failed for {self.identifier}: {error}") from error

    async def clean_up(self) -> None:
        try:
            await self.handler.cleanup(self.identifier, self.token, self.key_authorization)
        except Exception:
            log.warning("a proof for %s could not be cleaned up", self.identifier, exc_info=True)


@dataclass(frozen=True, slots=True)
class Ordering:
    """How certificates are ordered: over a session, for an account, with handlers, and with so much patience for each
    step of the server's, in seconds."""

    session: Session
    account: Account
    handlers: Sequence[ChallengeHandler]
    patience: float

    async def obtain(
        self,
        payload: Mapping[str, object],
        replaces: str | None,
        identifiers: Sequence[Identifier],
        csr: bytes,
        preferred_chain: str | None,
    ) -> Issued:
        """Order, prove, finalize, download. Raises `Problem` and `ClientError`."""
        order = await self._order(payload, replaces)
        if order.status == "pending":
            await self._authorize(order, identifiers)
            order = await self.account.fetch(order.url)
        order = await self._settled(order, "pending")
        if order.status == "ready":
            order = await self._finalize(order, csr)
        order = await self._settled(order, "processing", "ready")
        if order.status != "valid":
            raise _refusal(order.document.get("error"), f"the order is {order.status[:50]!a}")
        return await self._download(order, preferred_chain)

    async def _order(self, payload: Mapping[str, object], replaces: str | None) -> Resource:
        directory = await self.session.directory()
        # RFC 9773 §5: only where the server says that it knows the member.
        if replaces is not None and directory.renewal_info is not None:
            try:
                reply = await self.account.post(directory.new_order, {**payload, "replaces": replaces})
                return self.session.resource(reply, self.session.location(reply))
            except Problem as problem:
                if problem.type is ProblemType.RATE_LIMITED:
                    raise
                # It was replaced already, or is of another CA: that must not keep us from a certificate.
                log.info("the order was refused as a replacement: %s", problem)
        reply = await self.account.post(directory.new_order, payload)
        return self.session.resource(reply, self.session.location(reply))

    async def _settled(self, resource: Resource, *until: str) -> Resource:
        return await self.session.settled(resource, self.account, *until, patience=self.patience)

    async def _authorize(self, order: Resource, identifiers: Sequence[Identifier]) -> None:
        """Meet a challenge for each authorization that is not valid yet (§7.5)."""
        proofs: list[_Proof] = []
        for url in self._authorizations(order, len(identifiers)):
            authorization = await self.account.fetch(url)
            if authorization.status == "pending":
                proofs.append(self._choose(authorization, identifiers))
            elif authorization.status != "valid":
                raise _unauthorized(authorization)
        try:
            # Side by side, because a nameserver takes its time for each.
            outcomes = await asyncio.gather(*(proof.present() for proof in proofs), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            for proof in proofs:
                # §7.5.1: an empty object says that it is to be looked at.
                await self.account.post(proof.challenge, {})
            for proof in proofs:
                authorization = await self._settled(await self.account.fetch(proof.authorization), "pending")
                if authorization.status != "valid":
                    raise _unauthorized(authorization)
        finally:
            await asyncio.gather(*(proof.clean_up() for proof in proofs))

    def _authorizations(self, order: Resource, most: int) -> list[str]:
        urls = _list(order.document, "authorizations")
        if not urls or len(urls) > most:
            raise ClientError(f"the server's order for {most} names has {len(urls)} authorizations")
        return [self.session.check_url(url, "an authorization") for url in urls]

    def _choose(self, authorization: Resource, identifiers: Sequence[Identifier]) -> _Proof:
        """A proof for a challenge of this authorization: by the first handler that fits."""
        document = authorization.document.get("identifier")
        name = text_of(document, "value") if isinstance(document, dict) else ""
        # A server must not make us prove control of what nobody ordered, nor put its own words into our zone.
        if name not in {each.base.value for each in identifiers}:
            raise ClientError(f"the server wants control of {name[:100]!a} to be proved, which was not ordered")
        challenges = [each for each in _list(authorization.document, "challenges") if isinstance(each, dict)]
        for handler in self.handlers:
            for challenge in challenges:
                fits = handler.challenge_type in (challenge.get("type"), ANY)
                if fits and challenge.get("status") in ("pending", None):
                    token = check_token(text_of(challenge, "token"))
                    proof = key_authorization(token, self.account.key.thumbprint)
                    url = self.session.url_in(challenge, "url")
                    return _Proof(handler, authorization.url, url, name, token, proof)
        offered = ", ".join(ascii(text_of(each, "type")[:50])[1:-1] for each in challenges[:20]) or "nothing"
        given = ", ".join(each.challenge_type for each in self.handlers) or "none"
        raise ClientError(
            f"control of {name!a} has to be proved by one of: {offered}; the challenge handlers are for: {given}. "
            "Give a challenge_handler that fits"
        )

    async def _finalize(self, order: Resource, csr: bytes) -> Resource:
        url = self.session.url_in(order.document, "finalize")
        try:
            reply = await self.account.post(url, {"csr": to_base64url(csr)})
        except Problem as problem:
            if problem.type is not ProblemType.ORDER_NOT_READY:
                raise
            # Asked for twice, because the first answer was lost on its way? Then the order has gone on.
            order = await self.account.fetch(order.url)
            if order.status not in ("processing", "valid"):
                raise
            return order
        return self.session.resource(reply, order.url)

    async def _download(self, order: Resource, preferred_chain: str | None) -> Issued:
        """The chain (§7.4.2), or of several the one from the issuer that is preferred."""
        url = self.session.url_in(order.document, "certificate")
        reply = await self.account.post(url, None, accept=_CHAIN)
        issued = read_chain(reply.body)
        if preferred_chain is None or issued.is_from(preferred_chain):
            return issued
        for alternate in self.session.links(reply, "alternate")[:_ALTERNATES_MAX]:
            other = read_chain((await self.account.post(alternate, None, accept=_CHAIN)).body)
            if other.is_from(preferred_chain):
                return other
        log.warning("no chain is from the issuer %a; the usual one is used", preferred_chain)
        return issued


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    return value if isinstance(value, list) else []


def _refusal(error: object, otherwise: str) -> Exception:
    """The problem that a server gave as the reason."""
    if not isinstance(error, dict):
        return ClientError(f"{otherwise}, and the server does not say why")
    status = error.get("status")
    return received_problem(error, status if isinstance(status, int) else 400)


def _unauthorized(authorization: Resource) -> Exception:
    errors = [each.get("error") for each in _list(authorization.document, "challenges") if isinstance(each, dict)]
    otherwise = f"the authorization {authorization.url} is {authorization.status[:50]!a}"
    return _refusal(next((error for error in errors if error), None), otherwise)
