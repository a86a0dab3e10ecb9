"""What trusted proxies say of a request: its client, its scheme, and the path's prefix."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
# What the service's own paths begin with: a prefix like that would be taken for a path of it.
OWN = frozenset(
    ("docs", "livez", "metrics", "openapi.json", "readyz", "static", "static-offline-docs", "v1")
)
# An entry of X-Forwarded-For, such as 192.0.2.1:80, 2001:db8::1 or [2001:db8::1]:80; ports are
# optional.
_ENTRY = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9.]+)(?::[0-9]+)?|([0-9A-Fa-f:.]+)")


def is_prefix(text: str) -> bool:
    """Whether a text is a path prefix such as /pictures, or empty for none."""
    return _PREFIX.fullmatch(text) is not None and OWN.isdisjoint(text.split("/")[1:2])


class Proxied:
    """An application that knows who asks, and under which prefix, also behind proxies.

    uvicorn's ProxyHeadersMiddleware takes what is no address for the client, and knows no prefix.
    """

    def __init__(self, app: ASGIApp, trusted: Iterable[IPv4Network | IPv6Network], root_path: str):
        """trusted: the proxies whose headers count.

        root_path: the prefix of requests that come without the header X-Forwarded-Prefix.
        """
        self._app, self._trusted, self._root_path = app, tuple(trusted), root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            root_path, was_taken_off = self._root_path, False
            peer = address_of(scope) if self._trusted else None
            if peer is not None and self._trusts(peer):
                headers = Headers(scope=scope)
                scope["client"] = (str(self._client(peer, headers)), 0)
                # A header that comes twice has no value that counts.
                proto = ",".join(headers.getlist("x-forwarded-proto"))
                if proto in ("http", "https"):
                    scope["scheme"] = proto
                prefixes = headers.getlist("x-forwarded-prefix")
                if prefixes and is_prefix(",".join(prefixes)):
                    root_path, was_taken_off = prefixes[0], True
            if root_path:
                _put_under(scope, root_path, was_taken_off)
        await self._app(scope, receive, send)

    def _client(self, peer: "Address", headers: Headers) -> "Address":
        """The rightmost address that is not a trusted proxy's.

        An entry that is no address ends the search: it is unknown who sent what stands before it.
        """
        client = peer
        for entry in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")):
            match = _ENTRY.fullmatch(entry.strip())
            address = _address(next(filter(None, match.groups()))) if match else None
            if address is None:
                break
            client = address
            if not self._trusts(address):
                break
        return client

    def _trusts(self, address: "Address") -> bool:
        return any(address in network for network in self._trusted)


Address = IPv4Address | IPv6Address


def address_of(scope: Scope) -> Address | None:
    """The address of the client; None for one without, such as that of a Unix socket."""
    return _address(scope["client"][0]) if scope.get("client") else None


def _address(text: str) -> Address | None:
    """An IPv4 address that is written as an IPv6 one is the IPv4 address."""
    try:
        address = ip_address(text.partition("%")[0])  # without the zone of a link-local address
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def path_of(scope: Scope) -> str:
    """The path of a request on this server, without the prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _put_under(scope: Scope, root_path: str, was_taken_off: bool) -> None:
    """Let the path begin with the prefix; ASGI says that `path` includes `root_path`.

    was_taken_off: whether the proxy took the prefix off the path. If it did not say so, a path
    that begins with the prefix is left as it is.
    """
    path = scope["path"]
    if was_taken_off or not (path + "/").startswith(root_path + "/"):
        path = root_path + path
    elif path == root_path:
        path += "/"
    scope["root_path"], scope["path"] = root_path, path
