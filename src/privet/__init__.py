"""An internal certificate authority that speaks ACME."""
