"""How the private keys of certificates are written: as PKCS#8 or as it was done before, encrypted or not.

The law of this module: a password is in no repr.
"""

from dataclasses import dataclass, field

from privet.ca import keys
from privet.ca.keys import PrivateKey
from privet.client.errors import ClientError


@dataclass(frozen=True, slots=True)
class KeyForm:
    """Raises `ValueError` for a password that is empty, or longer than OpenSSL reads."""

    password: bytes | None = field(default=None, repr=False)
    traditional: bool = False

    def __post_init__(self) -> None:
        if self.password is not None and not self.password:
            raise ValueError("an empty password would encrypt nothing; leave it out if that is meant")
        if self.password is not None and len(self.password) > keys.LONGEST_PASSWORD:
            raise ValueError(f"the password of a key has {keys.LONGEST_PASSWORD} octets at most")

    def to_pem(self, key: PrivateKey) -> bytes:
        return keys.to_pem(key, self.password, traditional=self.traditional)

    def from_pem(self, pem: bytes) -> PrivateKey:
        """Read one that was written so, or before there was a password. Raises `ClientError`."""
        try:
            return keys.from_pem(pem, self.password if b"ENCRYPTED" in pem else None)
        except keys.BadKey as error:
            raise ClientError(f"the key cannot be used: {error}") from None
