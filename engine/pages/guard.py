"""What is refused before a request is looked at, and what every answer of the server says.

The server wraps its application in `Guard`. It refuses other hosts' names (DNS rebinding), posts
that other sites' pages send, and clients that ask too often. It never reads a body, and keeps of a
client only the times of its last requests, in memory.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MINUTE = 60.0  # seconds
MOST_CLIENTS = 10_000  # whose times are kept; beyond, the one that was silent longest is forgotten
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Refusal:
    """An answer of an error: HTTP status, its reason in one line, and further headers."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> JSONResponse:
        """The refusal as the API answers it."""
        return JSONResponse({"error": self.reason}, self.status, dict(self.headers))


def host_of(address: str) -> str:
    """The host's name in a Host header or an origin, in lower case, without port; '' for none."""
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""


class Rate:
    """Requests of each client in the last minute, of which at most `most` are let through."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Seconds until the client may ask again; 0.0 counts this request as one."""
        now = time.monotonic()
        times = self._times.setdefault(client, deque())
        self._times.move_to_end(client)
        while len(self._times) > MOST_CLIENTS:
            self._times.popitem(last=False)
        while times and now - times[0] >= MINUTE:
            times.popleft()
        if len(times) >= self._most:
            return MINUTE - (now - times[0])
        times.append(now)
        return 0.0


class Guard:
    """The ASGI application behind its checks, with HEADERS on each answer.

    `hosts`: names that the server answers to, in lower case; `scored`: paths whose posts count
    against the rate, which is a client's `per_minute`.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str], scored: Collection[str], per_minute: int
    ) -> None:
        self._app, self._hosts, self._scored = app, frozenset(hosts), frozenset(scored)
        self._rate = Rate(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An event of the server; requests alone are looked at."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        answer: ASGIApp = refusal.response() if refusal else self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        host = host_of(headers.get("host", ""))
        if host not in self._hosts:
            known = ", ".join(sorted(self._hosts))
            return Refusal(421, f"expected a host of {known} (--hosts); found {host!r}")
        if scope["method"] in ("GET", "HEAD"):
            return None
        # A page of another site can post here without asking; browsers say where it is from.
        origin = headers.get("origin")
        other = origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower()
        if other or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return Refusal(403, f"expected a request of this server's pages; found {origin}")
        if scope["path"] in self._scored:
            client = (scope.get("client") or ("",))[0]
            if seconds := self._rate.wait(client):
                after = {"Retry-After": str(max(1, round(seconds)))}
                return Refusal(429, "too many requests: ask again later", after)
        return None
