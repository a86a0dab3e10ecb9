"""How often each client may ask."""

import time
from ipaddress import IPv6Address, IPv6Network
from itertools import islice, takewhile
from threading import Timer

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import TooManyRequests, problem_response
from service.proxies import address_of, path_of

_MOST_COUNTS = 200_000  # counters in memory, about 100 MB; a client has one or two
_AT_ONCE = 1000  # counters that one request forgets, in about a millisecond
PROBES = frozenset(("/livez", "/readyz", "/metrics"))  # requested by programs, every few seconds


def rate_of(text: str) -> RateLimitItem:
    """A limit such as `100/minute` or `5/10 seconds`. Raises ValueError."""
    wanted = "a number of requests and a time are wanted, such as 100/minute"
    try:
        limits = parse_many(text)
    except ValueError:
        raise ValueError(wanted) from None
    if len(limits) != 1 or limits[0].amount < 1:
        raise ValueError(wanted)
    return limits[0]


def is_limited(path: str) -> bool:
    return path not in PROBES


class _Counts(MemoryStorage):
    """Counters that the event loop alone uses, and forgets once they no longer matter.

    MemoryStorage forgets in a thread, which walks over all counters up to a hundred times a second
    while requests change them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.timer = _NoTimer(0, self.check)

    def forget(self) -> None:
        """Drop some of what has expired: the first entries, since all last equally long.

        If there are too many counters, the oldest go, whether or not they have expired.
        """
        now, is_full = time.time(), len(self.storage) >= _MOST_COUNTS
        oldest = islice(self.expirations, _AT_ONCE)
        for key in list(takewhile(lambda key: is_full or self.expirations[key] <= now, oldest)):
            self.clear(key)


class _NoTimer(Timer):
    """A timer that MemoryStorage does not replace by one that runs."""

    def is_alive(self) -> bool:
        return True


class RateLimited:
    """An application that refuses the requests of a client that asks too often.

    A client is an IPv4 address or the /64 network of an IPv6 address, of which one client can
    have all. Clients without an address count as one.
    """

    def __init__(self, app: ASGIApp, rate: RateLimitItem):
        self._app, self._rate = app, rate
        self._counts = _Counts()
        self._limiter = SlidingWindowCounterRateLimiter(self._counts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_limited(path_of(scope)):
            client = _client(scope)
            self._counts.forget()
            if not self._limiter.hit(self._rate, client):
                reset = self._limiter.get_window_stats(self._rate, client).reset_time
                error = TooManyRequests(int(max(reset - time.time(), 0)) + 1)
                answer = problem_response(error, scope["state"]["request_id"])
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _client(scope: Scope) -> str:
    address = address_of(scope)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return str(address)
