"""Whether an address is this computer's own."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches `host`.

    A name other than "localhost" is whatever it resolves to today, and counts as reachable.
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
