"""The certificate authority: a key, the certificates that lead from it to the root, and what may be signed with it.

Speaks for RFC 5280 §4.1 and §4.2. Its law: serial and to-be-signed bytes are on record before the signature, and no
certificate outlives those that vouch for it.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.identifiers import Identifier
from privet.ca import keys
from privet.ca.certificates import AuthorityError, Certificate, WrongStatus
from privet.ca.issuer import Issuer, check_chain, make_root, new_serial
from privet.ca.keys import BadKey, KeyType, PublicKey, WeakKey, check_public_key
from privet.ca.profiles import DEFAULT, Profile
from privet.stores.base import Conflict, Record, Store, new_id

_logger = logging.getLogger("privet.ca")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class CertificateAuthority:
    """Issues certificates and keeps a record of each in the store. Several authorities share one store by their names.

    All its verbs are synchronous and safe to call from any thread once `init` has returned. With `key_password` the
    private key of the authority is encrypted in the store.
    """

    def __init__(
        self,
        store: Store,
        name: str = "root",
        *,
        key_password: bytes | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.store = store
        self.name = name
        self._key_password = key_password
        self._now = now
        self._issuer: Issuer | None = None

    def __repr__(self) -> str:
        return f"<CertificateAuthority {self.name!r}{'' if self.initialized else ', not initialized'}>"

    # --- the authority itself ---

    def init(
        self, cn: str = "privet Internal CA", validity_days: float = 3650, *, key_type: KeyType = KeyType.P256
    ) -> None:
        """Load the authority from the store, or make a self-signed root if there is none: safe at every start, and
        when several processes do it at once. Raises `AuthorityError` if the stored one cannot be used."""
        if self.load():
            return
        try:
            self._keep(make_root(keys.generate(key_type), cn, self._now(), timedelta(days=validity_days)))
            _logger.info("made the root of authority %r, SHA-256 %s", self.name, self.fingerprint)
        except Conflict:
            self.load()

    def load(self) -> bool:
        """Load the authority from the store; False if it is not there. Raises `AuthorityError` if it cannot be used."""
        if (record := self.store.get("ca", self.name)) is None:
            return False
        try:
            key = keys.from_pem(record.files["key.pem"], self._key_password)
            self._issuer = Issuer.of(key, x509.load_pem_x509_certificates(record.files["cert.pem"]))
        except (KeyError, ValueError, AuthorityError) as error:
            raise AuthorityError(f"the authority {self.name!r} in the store cannot be used: {error}") from None
        return True

    def import_ca(self, cert_pem: bytes, key_pem: bytes, password: bytes | None = None) -> None:
        """Take over an existing CA: its certificate, followed by those that lead from it to its root if it is not one
        itself, and its private key. Raises `AuthorityError` if it cannot serve, or if there already is one here."""
        try:
            chain = x509.load_pem_x509_certificates(cert_pem)
            check_chain(chain, self._now())
            issuer = Issuer.of(keys.from_pem(key_pem, password), chain)
        except BadKey as error:
            raise AuthorityError(f"the key of the CA cannot be used: {error}") from None
        except ValueError:
            raise AuthorityError("the certificate of the CA cannot be read: it is damaged, or not in PEM") from None
        try:
            self._keep(issuer)
        except Conflict:
            raise AuthorityError(f"there already is an authority {self.name!r} in this store") from None
        _logger.info("imported authority %r, SHA-256 of its root %s", self.name, self.fingerprint)

    def _keep(self, issuer: Issuer) -> None:
        files = {"cert.pem": issuer.chain_pem, "key.pem": keys.to_pem(issuer.key, self._key_password)}
        self.store.commit(Record("ca", self.name, files=files))
        self._issuer = issuer

    @property
    def initialized(self) -> bool:
        return self._issuer is not None

    @property
    def issuer(self) -> Issuer:
        if self._issuer is None:
            raise AuthorityError(f"the authority {self.name!r} is not initialized; call init() first")
        return self._issuer

    @property
    def root_cert(self) -> x509.Certificate:
        return self.issuer.chain[-1]

    @property
    def root_cert_pem(self) -> bytes:
        return self.root_cert.public_bytes(Encoding.PEM)

    @property
    def chain_pem(self) -> bytes:
        """What leads from a certificate to the root, and the root."""
        return self.issuer.chain_pem

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the root, as people compare it."""
        return self.root_cert.fingerprint(hashes.SHA256()).hex(":").upper()

    @property
    def not_after(self) -> datetime:
        """When the authority ends, and with it the last certificate it can sign."""
        return self.issuer.not_after

    # --- the two steps of every certificate; neither touches the store ---

    def prepare(
        self,
        public_key: PublicKey,
        identifiers: Sequence[Identifier],
        *,
        profile: Profile = DEFAULT,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        validity: timedelta | None = None,
        requester: str | None = None,
        request: str | None = None,
    ) -> Certificate:
        """Decide everything about a certificate but its signature. It is to be on record before it is signed.

        It begins a little in the past unless `not_before` says otherwise, and lives as long as `validity` or the
        profile says unless `not_after` does. It is cut off where the authority ends, and is `clamped` then.

        Raises `WeakKey`, and `AuthorityError` if there is no time at which it would be valid.
        """
        if not identifiers:
            raise ValueError("a certificate needs at least one name")
        if (key_type := check_public_key(public_key)) not in profile.key_types:
            raise WeakKey(f"the profile {profile.name!r} is not for {key_type} keys")
        now, serial = self._now(), new_serial()
        validity = profile.validity if validity is None else validity
        begin, end, clamped = self.issuer.span(now, not_before, not_after, validity)
        if clamped:
            _logger.warning(
                "certificate %x for %s is cut to %s, %s, the span of authority %r",
                serial,
                identifiers[0],
                begin,
                end,
                self.name,
            )
        return Certificate(
            id=new_id(now),
            serial=serial,
            identifiers=tuple(identifiers),
            not_before=begin,
            not_after=end,
            profile=profile.name,
            authority=self.name,
            tbs=self.issuer.leaf(serial, begin, end, public_key, identifiers, profile),
            requester=requester,
            request=request,
            clamped=clamped,
        )

    def sign(self, certificate: Certificate) -> Certificate:
        """Sign a prepared certificate. Raises `WrongStatus` if it is signed already, and `AuthorityError` if another
        authority prepared it."""
        if certificate.tbs is None:
            raise WrongStatus(f"certificate {certificate.serial:x} is {certificate.status}; it is signed already")
        if certificate.authority != self.name:
            raise AuthorityError(f"certificate {certificate.serial:x} belongs to authority {certificate.authority!r}")
        return certificate.signed(self.issuer.sign(certificate.tbs))
