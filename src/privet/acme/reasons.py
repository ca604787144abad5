"""Why a certificate is revoked (RFC 5280 §5.3.1, RFC 8555 §7.6): the numbers that clients send, and their names."""

# The others are for CAs (2, 10), for certificates that may come back (6, 8), or for nobody (7).
REVOCATION_REASONS = {
    0: "unspecified",
    1: "keyCompromise",
    3: "affiliationChanged",
    4: "superseded",
    5: "cessationOfOperation",
    9: "privilegeWithdrawn",
}
