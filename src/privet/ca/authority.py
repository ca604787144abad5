"""The certificate authority: a key, the certificates that lead from it to the root, and what may be signed with it.

Speaks for RFC 5280 §4.1 and §4.2. Its law: serial and to-be-signed bytes are on record before the signature, and no
certificate outlives those that vouch for it.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.identifiers import BadIdentifier, Identifier, IdentifierType, from_json, from_text
from privet.bundle import KIND as BUNDLE
from privet.bundle import CertBundle
from privet.ca import keys
from privet.ca.certificates import KIND as CERTIFICATE
from privet.ca.certificates import AuthorityError, Certificate, WrongStatus, fingerprint, name_of, serial_name
from privet.ca.constraints import NameConstraints, named_by
from privet.ca.csr import from_pem, parse_csr
from privet.ca.issuer import Issuer, check_common_name, make_root, new_serial
from privet.ca.keys import KeyType, PublicKey, WeakKey, check_public_key
from privet.ca.profiles import CLIENT, DEFAULT, Profile
from privet.stores.base import Conflict, Record, Store, new_id
from privet.stores.horizon import Horizon

_logger = logging.getLogger("privet.ca")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class CertificateAuthority:
    """Issues certificates and keeps a record of each in the store. Several authorities share one store by their names.

    All its verbs are synchronous and safe to call from any thread once `init` has returned. With `key_password` the
    private key of the authority is encrypted in the store.

    Raises `ValueError` for a password that is empty.
    """

    def __init__(
        self,
        store: Store,
        name: str = "root",
        *,
        key_password: bytes | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        if key_password is not None and not key_password:
            raise ValueError("an empty password would encrypt nothing; leave key_password out if that is meant")
        self.store = store
        self.name = name
        self._key_password = key_password
        self._now = now
        self._issuer: Issuer | None = None
        self._horizon = Horizon(timedelta(hours=1), timedelta(hours=2))

    def __repr__(self) -> str:
        return f"<CertificateAuthority {self.name!r}{'' if self.initialized else ', not initialized'}>"

    # --- the authority itself ---

    def init(
        self,
        cn: str = "privet Internal CA",
        validity_days: float = 3650,
        *,
        key_type: KeyType = KeyType.P256,
        name_constraints: NameConstraints | None = None,
    ) -> None:
        """Load the authority from the store, or make a self-signed root if there is none: safe at every start, and
        when several processes do it at once.

        With `name_constraints` it may certify only what they permit. They have to be those of the authority that is
        there already, if one is; without them, it keeps its own.

        Raises `AuthorityError` if the stored one cannot be used or has other constraints, and `ValueError` for a name
        or a span that is none.
        """
        if not self.load():
            validity = _validity(validity_days)
            try:
                self._keep(make_root(keys.generate(key_type), cn, self._now(), validity, name_constraints))
            except Conflict:
                self.load()
            else:
                _logger.info("made the root of authority %r, SHA-256 %s", self.name, self.fingerprint)
        if name_constraints and name_constraints.to_extension() not in self.issuer.constraints:
            raise AuthorityError(f"the authority {self.name!r} is there already, and has other name constraints")

    def load(self) -> bool:
        """Load the authority from the store; False if it is not there. Raises `AuthorityError` if it cannot be used."""
        if (record := self.store.get("ca", self.name)) is None:
            return False
        try:
            if "key.pem" not in record.files:
                raise AuthorityError("its key is not in the store")
            cert_pem, key_pem = record.files.get("cert.pem", b""), record.files["key.pem"]
            self._issuer = Issuer.from_pem(cert_pem, key_pem, self._key_password)
        except AuthorityError as error:
            raise AuthorityError(f"the authority {self.name!r} in the store cannot be used: {error}") from None
        return True

    def use(self, cert_pem: bytes, key_pem: bytes) -> None:
        """Be the authority with this certificate, followed by those that lead from it to its root, and this key, which
        `key_password` decrypts and which is not kept in the store: safe at every start, and for several processes at
        once. The store has the certificates, so that whoever shares it is the same authority.

        Raises `AuthorityError` if they cannot serve, or if the store has another authority of this name.
        """
        issuer = self._checked(Issuer.from_pem(cert_pem, key_pem, self._key_password))
        try:
            self.store.commit(Record("ca", self.name, files={"cert.pem": issuer.chain_pem}))
        except Conflict:
            record = self.store.get("ca", self.name)
            if record is None or record.files.get("cert.pem") != issuer.chain_pem:
                raise AuthorityError(
                    f"the store has an authority {self.name!r} with another certificate than that"
                ) from None
            if "key.pem" in record.files:
                _logger.warning("the key of authority %r is in the store as well", self.name)
        self._issuer = issuer

    def import_ca(self, cert_pem: bytes, key_pem: bytes, password: bytes | None = None) -> None:
        """Take over an existing CA: its certificate, followed by those that lead from it to its root if it is not one
        itself, and its private key. Raises `AuthorityError` if it cannot serve, or if there already is one here."""
        issuer = self._checked(Issuer.from_pem(cert_pem, key_pem, password))
        try:
            self._keep(issuer)
        except Conflict:
            raise AuthorityError(f"there already is an authority {self.name!r} in this store") from None
        _logger.info("imported authority %r, SHA-256 of its root %s", self.name, self.fingerprint)

    def _checked(self, issuer: Issuer) -> Issuer:
        """What somebody else has made, if it can serve; what may surprise is told. Raises `AuthorityError`."""
        issuer.check_time(self._now())
        if len(issuer.usages) == 1:
            _logger.warning("the extended key usage of the CA is for servers alone, or for clients alone")
        if not issuer.strict:
            _logger.warning(
                "the CA lacks key usage or subject key identifier; Python 3.13 will refuse its certificates"
            )
        return issuer

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
        return fingerprint(self.root_cert)

    @property
    def not_after(self) -> datetime:
        """When the authority ends, and with it the last certificate it can sign."""
        return self.issuer.not_after

    def check_time(self) -> None:
        """Raises `AuthorityError` unless the authority can sign now."""
        self.issuer.check_time(self._now())

    def prune_until(self) -> datetime:
        """What expired up to then may be pruned; it is not now if the clock has leapt ahead a short while ago."""
        return self._horizon.until(self._now())

    def check_names(self, identifiers: Sequence[Identifier]) -> None:
        """Raises `NamesRefused`, with all names that name constraints keep the authority from certifying."""
        self.issuer.check_names(identifiers)

    def secret(self, purpose: bytes) -> bytes:
        """A secret of 32 bytes that only who has this authority's key can know; another for each purpose."""
        return keys.derive(self.issuer.key, purpose)

    # --- the two steps of every certificate; neither touches the store ---

    def prepare(
        self,
        public_key: PublicKey,
        identifiers: Sequence[Identifier],
        *,
        common_name: str | None = None,
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

        The common name is the first of the identifiers, if it fits, unless `common_name` says another. That of a
        client's certificate may be any text, such as the user of a database, and then there need be no identifiers.

        Raises `ValueError` for what is no common name, `WeakKey`, `NamesRefused`, and `AuthorityError` if there is no
        time at which it would be valid or no use for which verifiers would accept it.
        """
        if not identifiers and (common_name is None or profile.server):
            raise ValueError("a certificate needs at least one name")
        if (key_type := check_public_key(public_key)) not in profile.key_types:
            raise WeakKey(f"the profile {profile.name!r} is not for {key_type} keys")
        self.check_names([*identifiers, *_named_by(common_name, profile)])
        self.issuer.check_usages(profile)
        now, serial = self._now(), new_serial()
        validity = profile.validity if validity is None else validity
        begin, end, clamped = self.issuer.span(now, not_before, not_after, validity)
        if clamped:
            _logger.warning(
                "certificate %x for %s is cut to the span of authority %r, and ends at %s",
                serial,
                common_name or identifiers[0],
                self.name,
                end.isoformat(),
            )
        return Certificate(
            id=new_id(now),
            serial=serial,
            identifiers=tuple(identifiers),
            common_name=common_name,
            not_before=begin,
            not_after=end,
            profile=profile.name,
            authority=self.name,
            tbs=self.issuer.leaf(serial, begin, end, public_key, identifiers, profile, common_name),
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

    # --- certificates without ACME ---

    def issue(
        self,
        names: str | Sequence[str] = (),
        *,
        common_name: str | None = None,
        client: bool = False,
        validity_days: float = 1,
        validity_hours: float | None = None,
        key_type: KeyType = KeyType.P256,
        key_pem: bytes | None = None,
        wildcard: bool = False,
    ) -> CertBundle:
        """A certificate for the names; for use by servers and clients, or by clients alone. The key is made here, or
        is `key_pem`.

        A client's `common_name` may be any text, such as the user of a database; then there need be no names. The
        store keeps both with the record of the certificate, and as the current bundle of the common name if one is
        given, else of the first name.

        Raises `BadIdentifier` for what is not a name and for a wildcard unless `wildcard` allows it, `ValueError` for
        a common name, a span or a key that is none, `NamesRefused`, and `AuthorityError` if the authority cannot sign
        now.
        """
        identifiers = [from_text(name) for name in ([names] if isinstance(names, str) else names)]
        key = keys.generate(key_type) if key_pem is None else keys.from_pem(key_pem)
        validity = _validity(validity_days, validity_hours)
        bundle = self._issue(key.public_key(), identifiers, common_name, keys.to_pem(key), client, validity, wildcard)
        return bundle.located(self.store)

    def issue_from_csr(
        self,
        csr: bytes,
        *,
        client: bool = False,
        validity_days: float = 1,
        validity_hours: float | None = None,
        wildcard: bool = False,
    ) -> CertBundle:
        """Certify the key and the names of a CSR in PEM or DER. The bundle's `key_pem` is empty, and the current
        bundle of the name stays as it is: its key lies elsewhere. A client's common name may be any text.

        Raises `BadCSR`, and what `issue` raises.
        """
        request, validity = parse_csr(from_pem(csr), any_common_name=client), _validity(validity_days, validity_hours)
        is_name = request.common_name in [each.value for each in request.identifiers]
        common_name = request.common_name if client and not is_name else None
        return self._issue(request.public_key, request.identifiers, common_name, b"", client, validity, wildcard)

    def _issue(
        self,
        public_key: PublicKey,
        identifiers: Sequence[Identifier],
        common_name: str | None,
        key_pem: bytes,
        client: bool,
        validity: timedelta,
        wildcard: bool,
    ) -> CertBundle:
        for identifier in identifiers:
            if identifier.wildcard and not wildcard:
                raise BadIdentifier(f"{identifier} is a wildcard; say wildcard=True if that is meant")
        names = tuple(dict.fromkeys(identifiers))
        profile = CLIENT if client else DEFAULT
        prepared = self.prepare(public_key, names, common_name=common_name, profile=profile, validity=validity)
        self.store.commit(prepared.to_record())
        signed = self.sign(prepared._replace(version=prepared.version + 1))
        bundle = CertBundle(
            domain=names[0].value if common_name is None else common_name,
            domains=tuple(name.value for name in names),
            cert_pem=signed.cert_pem,
            fullchain_pem=self.fullchain_pem(signed),
            key_pem=key_pem,
            expires_at=signed.not_after,
            serial=signed.serial,
        )
        if key_pem:
            self._commit_bundle(signed._replace(files=bundle.files), bundle)
        else:
            self.store.commit(signed.to_record())
        _logger.info(
            "issued certificate %x for %s until %s, SHA-256 %s",
            signed.serial,
            ", ".join(signed.names),
            signed.not_after,
            signed.fingerprint,
        )
        # More than one came in, so what has expired goes by itself.
        self.store.prune(self.prune_until(), limit=10)
        return bundle

    def _commit_bundle(self, certificate: Certificate, bundle: CertBundle) -> None:
        """Record the certificate and make its bundle the current one, whoever else does that at the same time."""
        tried = None
        while True:
            current = self.store.get(BUNDLE, bundle.domain)
            version = current.version if current else 0
            try:
                return self.store.commit(certificate.to_record(), bundle.to_record(version))
            except Conflict:
                if version == tried:
                    raise  # it is not about the bundle
                tried = version

    # --- what was issued ---

    def certificate(self, serial: int) -> Certificate | None:
        """The certificate of this serial number, if this authority knows it."""
        found = self.store.find(CERTIFICATE, serial_name(serial))
        return next((c for c in map(Certificate.from_record, found) if c.authority == self.name), None)

    def certificates(self, name: str | None = None, *, after: str = "", limit: int = 100) -> list[Certificate]:
        """Up to `limit` certificates of this authority, oldest first, beginning behind the id `after`; all, or those
        for a name. Raises `BadIdentifier` if it is none, and there is no client's certificate with it either."""
        label = None if name is None else self._label(name)
        certificates: list[Certificate] = []
        while len(certificates) < limit and (found := self.store.find(CERTIFICATE, label, after=after, limit=limit)):
            certificates += [c for c in map(Certificate.from_record, found) if c.authority == self.name]
            after = found[-1].id
        return certificates[:limit]

    def _label(self, name: str) -> str:
        # As it is written first: the client "Alice" is another than "alice".
        if self.store.find(CERTIFICATE, name_of(name), limit=1):
            return name_of(name)
        return name_of(from_text(name).value)

    def fullchain_pem(self, certificate: Certificate) -> bytes:
        """The certificate and what leads from it to the root."""
        return certificate.cert_pem + self.chain_pem

    def revoke(self, serial: int, reason: int = 0) -> Certificate:
        """Revoke a certificate for one of `REVOCATION_REASONS`.

        Raises `ValueError` for another reason, `WrongStatus` if it is revoked already, `AuthorityError` if there is no
        such certificate.
        """
        while True:
            if (certificate := self.certificate(serial)) is None:
                raise AuthorityError(
                    f"the authority {self.name!r} has no certificate with the serial number {serial:x}"
                )
            revoked = certificate.revoke(self._now(), reason)
            try:
                self.store.commit(revoked.to_record())
            except Conflict:
                continue  # somebody changed it: look again
            _logger.info("revoked certificate %x for reason %d, SHA-256 %s", serial, reason, revoked.fingerprint)
            return revoked._replace(version=revoked.version + 1)


def _named_by(common_name: str | None, profile: Profile) -> list[Identifier]:
    """The identifier that verifiers could take a common name for. Raises `ValueError` for what is no common name."""
    if common_name is None:
        return []
    check_common_name(common_name)
    if not profile.server:
        return named_by(common_name)
    try:
        return [from_json(IdentifierType.DNS, common_name)]
    except BadIdentifier:
        raise ValueError(f"{common_name!a} is no DNS name, and other common names are for clients alone") from None


def _validity(days: float, hours: float | None = None) -> timedelta:
    try:
        validity = timedelta(days=days) if hours is None else timedelta(hours=hours)
    except OverflowError:
        raise ValueError("a certificate cannot live that long") from None
    if validity < timedelta(seconds=1):
        raise ValueError("a certificate has to live for a second at least")
    return validity
