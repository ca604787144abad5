"""`--postgres`: for which user of which database a certificate is, and what its client and its server have to be told.

The law of this module: what is printed to be copied works as it stands, and lets in nobody but that user.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from cryptography import x509

from privet.ca.issuer import check_common_name
from privet.cli.failures import Failure
from privet.cli.printing import print_fields
from privet.mtls.config import TLSConfig
from privet.mtls.postgresql import SCHEMES, postgresql_dsn

_MAP = "privet"


@dataclass(frozen=True, slots=True)
class Database:
    """The user's, as far as it is known where it is."""

    url: str
    user: str

    @property
    def name(self) -> str:
        """The name of the database; empty where that is left to the client."""
        return unquote(urlsplit(self.url).path.removeprefix("/"))

    def document(self, folder: Path, certificate: x509.Certificate) -> dict[str, str]:
        """How the client whose files are in this folder connects, and what the server's files have to say. Raises
        `Failure`."""
        tls = TLSConfig(folder / "fullchain.pem", folder / "key.pem", folder / "ca.pem")
        common_name = common_name_of(certificate)
        if not (folder / "ca.pem").exists():
            raise Failure(f"there is no CA in {folder} for clients to trust: say which one it is with --ca-file")
        if common_name not in (None, self.user, *_dns_names(certificate)):
            raise Failure(
                f"the certificate's common name is {common_name!a}, which nobody asked for: it is not to be used"
            )
        if common_name is None:
            raise Failure(
                "the certificate has no common name, and PostgreSQL looks at nothing else: ask for one whose first "
                "name is a DNS name of at most 64 characters, from a CA that puts it there"
            )
        mapped = common_name != self.user
        rule = (
            f"hostssl {quoted(self.name) if self.name else 'all'} {quoted(self.user)} all cert clientcert=verify-full"
        )
        return {"user": self.user, "dsn": postgresql_dsn(self.url, tls)} | (
            {
                "pg_hba": f"{rule} map={_MAP}",
                "pg_ident": f"{_MAP} {quoted(common_name)} {quoted(self.user)}",
            }
            if mapped
            else {"pg_hba": rule}
        )


def read_database(text: str | None) -> tuple[Database | None, list[str]]:
    """What `--postgres` says, and what is wrong with it."""
    if text is None:
        return None, []
    url = text if text.partition("://")[0] in SCHEMES else f"postgresql://{quote(text, safe='')}@"
    try:
        postgresql_dsn(url, TLSConfig("cert", "key", "ca"))
        user = unquote(urlsplit(url).username or "")
        check_common_name(user)
    except ValueError as error:
        return None, [f"--postgres: {error}"]
    database = Database(url, user)
    if not database.name.isprintable():
        return None, ["--postgres: the name of the database has characters that pg_hba.conf cannot have"]
    # From PostgreSQL 16 on they mean more than themselves, even between quotes.
    if user.startswith("/") or database.name.startswith("/"):
        return None, [
            "--postgres: pg_hba.conf takes names that begin with a slash for patterns: they can have no line there"
        ]
    return database, []


def print_database(document: Mapping[str, str]) -> None:
    print_fields([("dsn", document["dsn"])])
    print(f"\nThe server lets this certificate in by a line in pg_hba.conf:\n  {document['pg_hba']}")
    if "pg_ident" in document:
        print(f"and, as its common name is not the user's, by one in pg_ident.conf:\n  {document['pg_ident']}")


def _dns_names(certificate: x509.Certificate) -> list[str]:
    names = [each.value for each in certificate.extensions if isinstance(each.value, x509.SubjectAlternativeName)]
    return [name for each in names for name in each.get_values_for_type(x509.DNSName)]


def common_name_of(certificate: x509.Certificate) -> str | None:
    found = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else None


def quoted(word: str) -> str:
    """A word for pg_hba.conf and pg_ident.conf; in quotes it means nothing but itself."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", word)
    keyword = word in ("all", "sameuser", "samerole", "samegroup", "replication")
    return word if plain and not keyword else '"' + word.replace('"', '""') + '"'
