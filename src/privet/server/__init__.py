"""The front of house: ACME over ASGI (RFC 8555)."""
