"""The client's account with one server (RFC 8555 §7.3): its key in the store, its URL, and what can be done with it.

The law of this module: a key is on disk before the server hears of it, so no crash loses an account.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from privet.acme.encoding import to_json
from privet.acme.problems import Problem, ProblemType
from privet.ca.keys import KeyType
from privet.client.errors import ClientError, ReceivedProblem
from privet.client.session import KeyAlone, Reply, Resource, Session, shown
from privet.client.signing import AccountKey, ExternalAccount
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Conflict, Record

KIND = "accounts"
_KEY, _NEXT = "account.key", "next-account.key"


class Account:
    """Made when it is first needed: found again by its key, or registered."""

    def __init__(
        self,
        session: Session,
        store: AsyncStore,
        *,
        contact: Sequence[str] = (),
        external_account: ExternalAccount | None = None,
        key_type: KeyType = KeyType.P256,
        agree_to_terms: bool = True,
    ) -> None:
        self._session = session
        self._store = store
        self._contact = [each if ":" in each else f"mailto:{each}" for each in contact]
        self._external_account = external_account
        self._key_type = key_type
        self._agree_to_terms = agree_to_terms
        self._record = Record(KIND, store_id(session.directory_url))
        self._key: AccountKey | None = None
        self._kid: str | None = None
        self._turn = asyncio.Lock()

    @property
    def key(self) -> AccountKey:
        assert self._key is not None
        return self._key

    @property
    def kid(self) -> str | None:
        return self._kid

    async def ready(self) -> str:
        """The account's URL, registered if need be."""
        async with self._turn:
            if self._kid is None:
                await self._open()
            assert self._kid is not None
            return self._kid

    async def post(self, url: str, payload: Mapping[str, object] | None, *, accept: str = "application/json") -> Reply:
        """A request signed by the account. When another process has changed its key, it is signed again with that one;
        a server that has forgotten the account is told of it again, once."""
        kid = await self.ready()
        try:
            return await self._session.post(url, payload, self, accept=accept)
        except Problem as problem:
            async with self._turn:
                if not await self._follow():
                    if problem.type is not ProblemType.ACCOUNT_DOES_NOT_EXIST:
                        raise
                    if self._kid == kid:
                        await self._register(self.key)
        await self.ready()
        return await self._session.post(url, payload, self, accept=accept)

    async def fetch(self, url: str) -> Resource:
        return self._session.resource(await self.post(url, None), url)

    async def update(self, contact: Sequence[str]) -> None:
        """Change the contacts (§7.3.2)."""
        self._contact = [each if ":" in each else f"mailto:{each}" for each in contact]
        await self.post(await self.ready(), {"contact": self._contact})
        async with self._turn:
            await self._note(self.key)

    async def deactivate(self) -> None:
        """End the account for good (§7.3.6). The next one will have another key."""
        url = await self.ready()
        try:
            await self.post(url, {"status": "deactivated"})
        except Problem:
            if not await self._has_ended():
                raise
        async with self._turn:
            await self._note(self.key, deactivated=True)
            self._key = self._kid = None

    async def _has_ended(self) -> bool:
        """Whether the server lets in nobody with this key any more: a request whose answer was lost has ended it."""
        new_account = (await self._session.directory()).new_account
        try:
            await self._session.post(new_account, {"onlyReturnExisting": True}, KeyAlone(self.key))
        except Problem as problem:
            # By its own word: a bare 401 or 403 may be of something in between, which knows nothing about accounts.
            return isinstance(problem, ReceivedProblem) and problem.urn == ProblemType.UNAUTHORIZED.urn
        return False

    async def change_key(self, key_type: KeyType | None = None) -> None:
        """Give the account another key (§7.3.5)."""
        await self.ready()
        async with self._turn:
            if await self._follow():
                await self._open()
            kid, directory = self._kid, await self._session.directory()
            if directory.key_change is None:
                raise ClientError(f"{self._session.directory_url} does not offer to change the keys of accounts")
            old, new = self.key, AccountKey.generate(key_type or self._key_type)
            try:
                await self._save(old, following=new)
            except Conflict:
                raise ClientError("another process changes the account at this moment; try again") from None
            inner = new.sign(
                {"jwk": dict(new.jwk), "url": directory.key_change},
                to_json({"account": kid, "oldKey": dict(old.jwk)}),
            )
            try:
                await self._session.post(directory.key_change, inner, self)
            except Problem:
                # It may have happened all the same: by a request whose answer was lost, which this was sent after.
                self._kid = None
                await self._find_out(old, new)
                if self._key is not new:
                    raise
                return
            except BaseException:
                self._kid = None  # who knows which key it is now; `_open` finds out
                raise
            self._key = new
            await self._note(new, instead_of=old)

    # --- the key and the store ---

    async def _open(self) -> None:
        record = await self._load()
        body = _body(record)
        following = record.files.get(_NEXT)
        if following is not None:
            await self._find_out(AccountKey.from_pem(record.files[_KEY]), AccountKey.from_pem(following))
        else:
            self._key = AccountKey.from_pem(record.files[_KEY])
            self._kid = self._known(body.get("url"))
        if self._kid is None:
            await self._register(self.key)
        elif self._contact and body.get("contact") != self._contact:
            try:
                await self._session.post(self._kid, {"contact": self._contact}, self)
            except Problem as problem:
                if problem.type is not ProblemType.ACCOUNT_DOES_NOT_EXIST:
                    raise
                await self._register(self.key)
            await self._note(self.key)

    async def _load(self) -> Record:
        """The record with the account's key, made if there is none; of several that make one, the first."""
        while True:
            record = await self._store.get(KIND, self._record.id)
            if record is not None and _KEY in record.files and not _body(record).get("deactivated"):
                self._record = record
                return record
            self._record = record or Record(KIND, self._record.id)
            try:
                await self._save(AccountKey.generate(self._key_type))
            except Conflict:
                continue

    async def _save(self, key: AccountKey, *, following: AccountKey | None = None, deactivated: bool = False) -> None:
        """Raises `Conflict` if another process has changed the account meanwhile."""
        files = {_KEY: key.to_pem()}
        if following is not None:
            files[_NEXT] = following.to_pem()
        body: dict[str, object] = {"directory": self._session.directory_url, "url": self._kid, "contact": self._contact}
        if deactivated:
            body["deactivated"] = True
        record = self._record._replace(body=json.dumps(body).encode(), files=files)
        await self._store.commit(record)
        self._record = record._replace(version=record.version + 1)

    async def _note(self, key: AccountKey, *, deactivated: bool = False, instead_of: AccountKey | None = None) -> None:
        """Save what has become of the account. Another process that did so at the same time knows no less, but that
        the account has ended, or has this key `instead_of` that one."""
        known_before = instead_of or (key if deactivated else None)
        while True:
            try:
                return await self._save(key, deactivated=deactivated)
            except Conflict:
                self._record = await self._store.get(KIND, self._record.id) or self._record
            if known_before is None or self._record.files.get(_KEY) != known_before.to_pem():
                return None

    async def _follow(self) -> bool:
        """Whether another process has changed the account in the store; then it is opened anew when it is needed."""
        record = await self._store.get(KIND, self._record.id)
        if record is None or (record.files == self._record.files and not _body(record).get("deactivated")):
            return False
        self._record, self._key, self._kid = record, None, None
        return True

    def _known(self, url: object) -> str | None:
        """The account's URL as it was, if the server is still where it was."""
        try:
            return self._session.check_url(url, "the account")
        except ClientError:
            return None

    async def _find_out(self, current: AccountKey, following: AccountKey) -> None:
        """Which of two keys the account has: a change was cut short."""
        new_account = (await self._session.directory()).new_account
        for key in (following, current):
            try:
                reply = await self._session.post(new_account, {"onlyReturnExisting": True}, KeyAlone(key))
            except Problem as problem:
                if problem.type is not ProblemType.ACCOUNT_DOES_NOT_EXIST:
                    raise
                continue
            self._key, self._kid = key, self._session.location(reply)
            await self._note(key, instead_of=current if key is following else None)
            return
        self._key, self._kid = current, None

    async def _register(self, key: AccountKey) -> None:
        """newAccount (§7.3); a server that has an account for this key answers with that one (§7.3.1)."""
        self._session.forget_directory()
        directory = await self._session.directory()
        payload: dict[str, object] = {"contact": self._contact} if self._contact else {}
        if directory.terms_of_service is not None and not self._agree_to_terms:
            raise ClientError(
                f"the server wants you to agree to {shown(directory.terms_of_service)}; read it, and say agree_to_terms"
            )
        if self._agree_to_terms:
            payload["termsOfServiceAgreed"] = True
        if self._external_account is not None:
            payload["externalAccountBinding"] = self._external_account.bind(directory.new_account, key)
        elif directory.external_account_required:
            raise ClientError(
                f"{self._session.directory_url} lets in who has an external account key; ask the CA for one, and give "
                "it as external_account=(kid, mac_key)"
            )
        reply = await self._session.post(directory.new_account, payload, KeyAlone(key))
        self._key, self._kid = key, self._session.location(reply)
        await self._note(key)


def store_id(directory_url: str) -> str:
    """What the account's record is called: to be read by people, and another for every directory."""
    name = re.sub("[^a-z0-9.]+", "-", directory_url.lower().partition("://")[2])[:60].strip("-")
    return f"{name}-{hashlib.sha256(directory_url.encode()).hexdigest()[:8]}"


def _body(record: Record) -> dict[str, Any]:
    try:
        body = json.loads(record.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
