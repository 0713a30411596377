"""Whose request it is by address, also behind proxies that are trusted to say so."""

import ipaddress
from collections.abc import Sequence

from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MOST_HOPS = 20


def trusted(address: str, proxies: Sequence[Network]) -> bool:
    """Whether the address is that of a proxy that is trusted."""
    if not proxies:
        return False
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in proxies)


def client_of(scope: Scope, proxies: Sequence[Network]) -> str:
    """Whom the request comes from: the last address that no trusted proxy has.

    X-Forwarded-For is believed only as far as trusted proxies wrote it: from the right, up to the
    first address that is not one of them. What the client itself put there is to the left of that.
    """
    client = scope.get("client")
    address: str = client[0] if client else ""
    if not trusted(address, proxies):
        return group(address)
    given = [v for name, v in scope["headers"] if name == b"x-forwarded-for"]
    hops = b",".join(given).decode("latin-1").rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]
    for hop in reversed(hops):
        found = _parse(hop.strip())
        if found is None:
            break
        address = str(found)
        if not trusted(address, proxies):
            break
    return group(address)


def group(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    found = _parse(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found.packed[:8] + bytes(8), 64)))
    return address if found is None else str(found)


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
