"""Where people look for the handler of dns-01 challenges and its providers: `from privet.challenges.dns01 import …`."""

from privet.client.dns01 import DNS01Handler, DNSProvider
from privet.client.dnsproviders import RFC2136, AcmeDNS, Hook

__all__ = ["AcmeDNS", "DNS01Handler", "DNSProvider", "Hook", "RFC2136"]
