"""Getting a node's certificate, putting it in its place, telling the service, and doing that again in time.

The laws of this module: a certificate counts as in its place once the service has been told of it, so whoever was
killed in between is not the last who tries; and a service or a CA that is down ends nothing.
"""

import asyncio
import contextlib
import logging
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.problems import Problem
from privet.bundle import CertBundle
from privet.ca import KeyType
from privet.cli.failures import Failure
from privet.cli.node.folder import CA, Folder, NodeSettings
from privet.cli.printing import to_text
from privet.cli.stores import read_file, read_password
from privet.client.client import Client
from privet.client.dns01 import DNS01Handler
from privet.client.dnsproviders import Hook
from privet.client.errors import ClientError
from privet.client.handlers import Approval, ChallengeHandler
from privet.client.http01 import HTTP01Handler
from privet.client.programs import run_program
from privet.client.renewal import RenewalManager
from privet.client.tlsalpn01 import TLSALPN01Handler
from privet.client.trust import fetch_root, fetch_roots, read_fingerprint
from privet.client.vault import VaultClient
from privet.stores import StoreError

log = logging.getLogger("privet.node")

_AS_BEFORE = ("directory", "fingerprint", "ca_file", "key_type", "profile", "role", "password_file", "traditional")
_LOOK = 60.0
_PATIENCE = 300.0
_RELOAD = 120.0

# What the client says to programmers, as it is spelled on the command line.
_SPELLED = {
    "give it as external_account=(kid, mac_key)": "give it with --external-account and --external-account-key-file",
    "Give a challenge_handler that fits": "Give --http-01, --webroot, --tls-alpn-01, --dns-hook, or --approval-within "
    "where a person decides",
    "the challenge handlers are for": "the options are for",
    "Give HTTP01Handler another port": "Give --http-01-port another port",
    "the webroot of the server that is there, or mount it in that": "or --webroot of the server that is there",
    "give the CA's root as ca_bundle=, or its ca_fingerprint=": "say whom to trust with --fingerprint or --ca-file",
    "the ca_bundle": "the --ca-file",
}


class NotReloaded(Failure):
    """The certificate is in its place, and its service does not know."""

    status = 3


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What a client or a server says, as a `Failure`."""
    try:
        yield
    except (ClientError, Problem) as error:
        raise Failure(to_sentence(error)) from None


def to_sentence(error: Exception) -> str:
    sentence = str(error) or type(error).__name__
    for said, spelled in _SPELLED.items():
        sentence = sentence.replace(said, spelled)
    return " ".join(sentence.split())


@contextlib.asynccontextmanager
async def connected(folder: Folder, settings: NodeSettings) -> AsyncIterator[Client | VaultClient]:
    """The client for a folder. Raises `Failure`, and what the client raises as one."""
    with told():
        password = read_password(Path(settings.password_file)) if settings.password_file else None
        if settings.role is not None and settings.token_file is not None:
            async with VaultClient(
                settings.directory,
                settings.role,
                Path(settings.token_file),
                store=folder.store,
                allow_insecure=settings.insecure,
                ca_bundle=settings.ca_file,
                ca_fingerprint=settings.fingerprint,
                key_type=KeyType(settings.key_type),
                key_password=password,
                traditional_key=settings.traditional,
            ) as vault:
                yield vault
            return
        async with Client(
            settings.directory,
            store=folder.store,
            challenge_handler=_handlers(settings),
            allow_insecure=settings.insecure,
            ca_bundle=settings.ca_file,
            ca_fingerprint=settings.fingerprint,
            contact=settings.contact,
            external_account=_external_account(settings),
            key_type=KeyType(settings.key_type),
            key_password=password,
            traditional_key=settings.traditional,
            profile=settings.profile,
            patience=max(_PATIENCE, settings.approval_within or 0),
        ) as client:
            yield client


def _handlers(settings: NodeSettings) -> list[ChallengeHandler]:
    handlers: list[ChallengeHandler] = []
    if settings.http_01_port is not None:
        handlers.append(HTTP01Handler(settings.http_01_port))
    if settings.webroot is not None:
        handlers.append(HTTP01Handler(webroot=settings.webroot))
    if settings.dns_hook:
        handlers.append(DNS01Handler(Hook(*settings.dns_hook)))
    if settings.tls_alpn_01_port is not None:
        handlers.append(TLSALPN01Handler(settings.tls_alpn_01_port))
    if settings.approval_within is not None:
        handlers.append(Approval())
    return handlers


def _external_account(settings: NodeSettings) -> tuple[str, str] | None:
    """What lets a node in. The account that it has let in goes on without it."""
    if settings.external_account is None or settings.external_account_key_file is None:
        return None
    try:
        key = Path(settings.external_account_key_file).read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return settings.external_account, key


# --- into its place ---


async def trusted(folder: Folder, settings: NodeSettings, bundle: CertBundle) -> bytes | None:
    """What others have to trust, to trust this certificate: the root that was named, or the one beside the directory
    if it has signed the end of the chain. Where nobody answers, what was found before."""
    before = folder.remembered("root").get("pem")
    roots = [] if before is None else x509.load_pem_x509_certificates(before.encode())
    if settings.fingerprint is not None:
        wanted = read_fingerprint(settings.fingerprint)
        known = [root for root in roots if root.fingerprint(hashes.SHA256()) == wanted]
        root = known[0] if known else await fetch_root(settings.directory, settings.fingerprint)
        return root.public_bytes(Encoding.PEM)
    if settings.ca_file is None:
        last = x509.load_pem_x509_certificates(bundle.fullchain_pem)[-1]
        with contextlib.suppress(ClientError):
            roots = await fetch_roots(settings.directory)
        for root in roots:
            with contextlib.suppress(ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                last.verify_directly_issued_by(root)
                return root.public_bytes(Encoding.PEM)
    return None


def files_of(folder: Folder, settings: NodeSettings, bundle: CertBundle) -> dict[str, bytes]:
    """What belongs into the folder. Raises `Failure`."""
    if settings.ca_file is not None:
        ca = read_file(Path(settings.ca_file), "the --ca-file ")
    elif found := folder.remembered("root").get("pem"):
        ca = found.encode()
    else:
        ca = b"".join(
            each.public_bytes(Encoding.PEM) for each in x509.load_pem_x509_certificates(bundle.fullchain_pem)[1:]
        )
    return ({CA: ca} if ca else {}) | bundle.files


async def put_in_place(folder: Folder, settings: NodeSettings) -> None:
    """Have the current certificate in the folder, and its service told. Does nothing where that is so. Raises
    `Failure`, and of those `NotReloaded` when only the service is missing."""
    async with folder.turn():  # until the service was told, so that it is told once
        await _put_in_place(folder, settings)


async def _put_in_place(folder: Folder, settings: NodeSettings) -> None:
    bundle = folder.bundle(settings)
    wanted = {"serial": f"{bundle.serial:x}", "owner": settings.owner, "mode": settings.mode}
    live = folder.remembered("live")
    complaint = live.pop("complaint", None)
    try:
        files = files_of(folder, settings, bundle)
        if live != wanted or not folder.holds(files, settings):
            await asyncio.to_thread(folder.swap, files, settings)
        elif complaint is None:
            return
    except Failure as failure:
        with contextlib.suppress(StoreError):  # a disk may be full
            folder.remember("live", live | {"complaint": str(failure)})
        raise
    complaint = await _reload(settings.reload_command) if settings.reload_command else None
    folder.remember("live", wanted | ({"complaint": complaint} if complaint else {}))
    if complaint is not None:
        raise NotReloaded(f"the certificate is in {folder.path}, but {complaint}")
    log.info("the certificate is in %s%s", folder.path, ", and its service was told" * bool(settings.reload_command))


async def _reload(command: Sequence[str]) -> str | None:
    """Tell the service. Returns what went wrong."""
    what = f"the reload command {shlex.join(command)!r}"
    try:
        status, said = await run_program(what, command, patience=_RELOAD)
    except ClientError as error:
        return str(error)
    return f"{what} ended with {status}" + (f": {said}" if said else "") if status else None


# --- in time ---


async def get(folder: Folder, settings: NodeSettings, *, keep: bool) -> CertBundle:
    """Ask for a certificate and put it in its place; with `keep`, one that is young and was asked for in the same way
    stays. Raises `Failure`."""
    async with folder.turn():
        folder.check_writable(settings)
    before = folder.remembered("settings")
    same = all({"traditional": False, **before}.get(each) == getattr(settings, each) for each in _AS_BEFORE)
    async with connected(folder, settings) as client:
        if isinstance(client, VaultClient):
            user = settings.common_name
            bundle = await (
                client.ensure(settings.names, common_name=user, fraction=settings.renewal_threshold)
                if keep and same
                else client.issue(settings.names, common_name=user)
            )
        else:
            bundle = await (
                client.ensure(settings.names, fraction=settings.renewal_threshold)
                if keep and same
                else client.issue(settings.names)
            )
        root = await trusted(folder, settings, bundle)
    folder.remember("root", {"pem": root.decode()} if root else {})
    folder.keep_settings(settings)
    folder.remember("renewal", {})
    await put_in_place(folder, settings)
    return bundle


async def renew(folder: Folder, *, force: bool) -> bool:
    """Renew what is due, and return whether it was. Raises `Failure`."""
    settings = folder.settings()
    async with connected(folder, settings) as client:
        if force:
            await client.renew(folder.bundle(settings), rotate_key=not settings.reuse_key)
            folder.remember("renewal", {})
            renewed = True
        else:
            manager = _manager(client, settings)
            renewed = bool(await manager.sweep())
            _remember(folder, manager)
    await put_in_place(folder, settings)
    if error := folder.remembered("renewal").get("error"):
        raise Failure(f"the certificate in {folder.path} was not renewed: {error}")
    return renewed


async def keep_renewed(folders: Sequence[Folder]) -> None:
    """Renew as long as nobody sends SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    end = asyncio.create_task(ended.wait())
    tasks = [asyncio.create_task(_keep(folder)) for folder in folders]
    try:
        done, _ = await asyncio.wait([end, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for each in (end, *tasks):
            each.cancel()
        await asyncio.gather(end, *tasks, return_exceptions=True)
    log.info("ended")


async def _keep(folder: Folder) -> None:
    news = asyncio.Event()
    settings = folder.settings()
    log.info("keeping the certificate for %s in %s renewed", settings.domain, folder.path)
    tell: Callable[..., None] = lambda *_: news.set()  # noqa: E731
    async with connected(folder, settings) as client:
        manager = _manager(client, settings, tell)
        task = manager.start()
        try:
            while True:
                news.clear()
                # The manager renews; whatever goes wrong here is tried again, a minute from now.
                try:
                    _remember(folder, manager)
                    await put_in_place(folder, folder.settings())
                except Exception as error:
                    log.warning("%s", error if isinstance(error, Failure) else repr(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), _LOOK)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _manager(
    client: Client | VaultClient, settings: NodeSettings, tell: Callable[..., None] | None = None
) -> RenewalManager:
    return RenewalManager(
        client=client,
        names=[settings.domain],
        fraction=settings.renewal_threshold,
        days_before_expiry=settings.days_before_expiry,
        rotate_key=not settings.reuse_key,
        on_renewed=tell,
        on_error=tell,
    )


def _remember(folder: Folder, manager: RenewalManager) -> None:
    for each in manager.status():
        folder.remember(
            "renewal",
            {
                "due": each.due and to_text(each.due),
                "failures": each.failures,
                "error": each.error and to_sentence(ClientError(each.error)),
                "at": to_text(datetime.now(UTC)),
            }
            if each.failures
            else {"due": each.due and to_text(each.due)},
        )
