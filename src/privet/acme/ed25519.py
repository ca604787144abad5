"""Ed25519 public keys that are none (RFC 8032 §5.1): OpenSSL takes them, and for some of them anyone can sign."""

# A point is its y, below the prime of the field, with the sign of its x on top.
_FIELD, _SIGN_OF_X = 2**255 - 19, 1 << 255
# The ys of the points whose order divides 8.
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _ORDER_8, _FIELD - _ORDER_8})


def is_sound(octets: bytes) -> bool:
    """Whether a public key is written in the one way it can be, and only its owner can sign for it."""
    y = int.from_bytes(octets, "little") & ~_SIGN_OF_X
    return y < _FIELD and y not in _SMALL_ORDER
