"""The other side of the wire: a client for any ACME server (RFC 8555), its challenges, and renewal in time."""
