"""The second door: certificates for programs that speak Vault's PKI API, by tokens and roles instead of accounts."""
