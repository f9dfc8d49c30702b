"""Requests that reach the public internet alone, whatever a list of addresses or a redirect names.

download.py has each such request watched: who fetches a stranger's list must not be made to ask
his own router, cloud or colleagues. The connection itself is looked at, before anything is sent
over it, because what a name stands for may change between two questions.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx


class PrivateError(Exception):
    """A connection to an address of a private network; the message is one line."""


def watch(request: httpx.Request) -> None:
    """Hook of a client: `_check` is told of each connection that a request opens."""
    request.extensions["trace"] = partial(_check, request)


@cache
def _proxies() -> frozenset[str]:
    """IP addresses of the proxies that the environment names: they decide where they lead to."""
    hosts = [urlsplit(url).hostname for kind, url in getproxies().items() if kind != "no"]
    return frozenset(str(a[4][0]) for host in hosts if host for a in socket.getaddrinfo(host, None))


def _check(request: httpx.Request, event: str, info: Mapping[str, Any]) -> None:
    """Raises PrivateError on a connection to an address that is none of the public internet."""
    if event != "connection.connect_tcp.complete":
        return
    stream = info["return_value"]
    text = str(stream.get_extra_info("server_addr")[0]).partition("%")[0]
    address = ipaddress.ip_address(text)
    address = getattr(address, "ipv4_mapped", None) or address
    if (not address.is_global or address.is_multicast) and text not in _proxies():
        stream.close()
        raise PrivateError(f"{request.url.host} is {address}, of a private network")
