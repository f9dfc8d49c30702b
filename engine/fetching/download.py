"""Downloads by HTTP: bounded in bytes, tries and patience, continued where they broke off.

What comes lies in NAME.part until its size and sum are those that the service states. A server is
never trusted: not for how much it sends, how slowly, where it redirects to, or whether the rest is
of the same version. Imports no torch and prints nothing.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import ConfigDict, NonNegativeInt, dataclasses

from ..plain_data import MOST_JSON, parse_json
from ..runtime.files import naming
from ..runtime.text import reason
from . import public as _public

TRIES = 5  # in a row without a byte of progress
FIRST_TRIES = 2  # of a host that never answered: without a network the user learns it in seconds
MOST_TRIES = 30  # in all: a server that gives one byte a try does not hold us for ever
PAUSES = (1.0, 2.0, 5.0, 15.0)  # seconds between tries
LONGEST = 120.0  # seconds; most that a server may ask to wait
TIMEOUT = httpx.Timeout(30.0, connect=5.0)  # seconds without a byte
WINDOW, MIN_RATE = 60.0, 1024  # a stream below MIN_RATE bytes/s over WINDOW seconds is given up
REDIRECTS = 10
MAX_UNKNOWN = 50 << 30  # bytes of a file whose size nobody states
MAX_JSON = MOST_JSON  # bytes; the longest published list of files has under 10 MB
PASSING = (408, 425, 429, 500, 502, 503, 504)
HINTS = {
    401: ": it wants you to log in",
    403: ": it wants you to log in, or to accept its terms",
    404: ": it is not there any more",
}
HEADERS = {"User-Agent": "synthetic-picture-detectors", "Accept-Encoding": "identity"}
T = TypeVar("T")
log = logging.getLogger(__name__)


class FetchError(ValueError):
    """Data that cannot be had: not downloaded, not unpacked, or other than what its service or its
    archive says; the message is one line."""


class UnreachableError(FetchError):
    """A host that does not answer at all, so that others of its files need not be tried."""


class _BrokenError(Exception):
    """An answer that ended or stalled; the next try goes on."""


class _StatusError(Exception):
    """An answer with another status than success. `code`; `wait`: seconds that it asks for."""

    def __init__(self, answer: httpx.Response) -> None:
        self.code, after = answer.status_code, answer.headers.get("Retry-After", "").strip()
        # RFC 9110, 10.2.3: seconds, or a date, which the usual pauses serve as well.
        self.wait = min(float(after), LONGEST) if after.isdecimal() else 0.0
        hint = HINTS.get(self.code, "")
        super().__init__(f"the server answered {self.code} {answer.reason_phrase}{hint}")


@dataclasses.dataclass(frozen=True, config=ConfigDict(strict=True))
class Remote:
    """A file on a server, as its service states it; ValueError for an answer of another form.
    `name`: its path there. `size`: bytes, or None. `checksum`: "sha256:" or "md5:" and hex digits,
    or None. `headers`: to be sent, to the first host alone."""

    name: str
    url: str
    size: NonNegativeInt | None = None
    checksum: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Meter:
    """Bytes of one stream: no more than `limit` in all, no slower than MIN_RATE, and none after
    `until`, a time of time.monotonic."""

    name: str
    limit: int
    size: int = 0
    until: float = math.inf

    def __post_init__(self) -> None:
        self._since, self._before = time.monotonic(), self.size

    def count(self, more: int) -> None:
        """Adds bytes that came, before they are kept. Raises FetchError for more than there may be,
        _BrokenError where they come too slowly."""
        self.size += more
        if self.size > self.limit:
            wanted = f"at most {self.limit} bytes"
            raise FetchError(f"{self.name}: expected {wanted}; more came: try again later")
        passed = (now := time.monotonic()) - self._since
        if now > self.until:
            raise FetchError(f"{self.name}: expected an answer in time; it came too slowly")
        if passed < WINDOW:
            return
        if self.size - self._before < MIN_RATE * passed:
            raise _BrokenError(f"under {MIN_RATE} bytes came per second")
        self.__post_init__()


def _persist(
    url: str,
    ask: Callable[[httpx.Client], T],
    size: Callable[[], int] = lambda: 0,
    public: bool = False,
    until: float = math.inf,
) -> T:
    """The value of `ask`, after some tries where the network fails it.

    Args:
        url: what is asked for.
        ask: one try, which may raise _BrokenError, _StatusError and httpx.HTTPError.
        size: bytes that are there already, by which progress shows.
        public: connect to hosts of the public internet alone.
        until: time.monotonic after which no other try begins.

    Raises:
        FetchError: refused, or given up; UnreachableError where no host answered.
    """
    answers: list[httpx.Response] = []
    furthest = in_a_row = 0
    with _client(url, public, answers) as client:
        for _ in range(MOST_TRIES):
            try:
                return ask(client)
            except httpx.InvalidURL as error:
                raise FetchError(f"{url}: expected an address; {error}") from error
            except _public.PrivateError as error:
                raise FetchError(f"{url}: refused: {error}") from error
            except (httpx.HTTPError, _BrokenError, _StatusError) as error:
                failure = error
            why = reason(failure)
            if isinstance(failure, _StatusError) and failure.code not in PASSING:
                raise FetchError(f"{url}: {why}") from failure
            in_a_row = 1 if size() > furthest else in_a_row + 1
            furthest = max(furthest, size())
            if in_a_row >= _tries(failure, bool(answers)) or time.monotonic() > until:
                break
            pause = max(PAUSES[min(in_a_row, len(PAUSES)) - 1], getattr(failure, "wait", 0))
            log.info("%s: %s; trying again in %.0f s", url, why, pause)
            time.sleep(pause)
    kind = FetchError if answers else UnreachableError
    raise kind(f"{url}: {why}: the same command goes on") from failure


def _tries(failure: Exception, answered: bool) -> int:
    """Failures in a row after which a request is given up. A slow or busy host is worth waiting
    for; one that cannot be connected to is away."""
    if not answered and isinstance(failure, httpx.ConnectTimeout):
        return 1  # each of the host's addresses has taken its time already
    return FIRST_TRIES if not answered and isinstance(failure, httpx.ConnectError) else TRIES


def _client(url: str, public: bool, answers: list[httpx.Response]) -> httpx.Client:
    """A client for an address, which notes in `answers` that a host answered."""
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url}: expected an address that starts with http:// or https://")
    try:
        client = httpx.Client(verify=_certificates(), headers=HEADERS, timeout=TIMEOUT)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise FetchError(f"expected a usable proxy in the environment; {error}") from error
    watchers = [_public.watch] if public else []
    client.event_hooks = {"request": watchers, "response": [answers.append]}
    return client


@cache
def _certificates() -> ssl.SSLContext:
    """The authorities that are trusted, read once: a list may name a million pictures."""
    return httpx.create_ssl_context()


@contextmanager
def _answer(client: httpx.Client, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
    """A successful answer whose content is yet to be read. Raises _StatusError, httpx.HTTPError.

    Redirects are followed here, not by the library, which reads all that a redirect holds and
    follows from https to http. It does keep Authorization from other hosts.
    """
    request: httpx.Request | None = client.build_request("GET", url, headers=headers)
    for _ in range(REDIRECTS + 1):
        assert request is not None  # a redirect has one
        answer = client.send(request, stream=True)
        with closing(answer):
            if not answer.has_redirect_location:
                if not answer.is_success:
                    raise _StatusError(answer)
                yield answer
                return
        old, request = request, answer.next_request
        new = request.url if request else old.url
        allowed = ("https",) if old.url.scheme == "https" else ("http", "https")
        if new.scheme not in allowed:
            raise FetchError(f"{url}: refused: it leads to {new!s:.200}")
    raise FetchError(f"{url}: refused: it leads on more than {REDIRECTS} times")


def _chunks(answer: httpx.Response, meter: Meter) -> Iterator[bytes]:
    """An answer's content as it comes, counted by `meter` before it is handed on."""
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding != "identity":  # unpacked, a few bytes would become as many as they like
        raise FetchError(f"{meter.name}: expected it as it is; found it packed by {encoding!r}")
    try:
        for chunk in answer.iter_raw():
            meter.count(len(chunk))
            yield chunk
    except httpx.HTTPError as error:
        raise _BrokenError(f"the connection ended after {meter.size} bytes ({error})") from error


def get_bytes(
    url: str,
    limit: int,
    headers: Mapping[str, str] | None = None,
    public: bool = False,
    seconds: float = math.inf,
) -> tuple[bytes, str | None]:
    """The content of a small file, and the address of the page that follows it, if one is named.

    Args:
        limit: the most bytes that it may have.
        public: refuse hosts that are none of the public internet, also where redirects lead there.
        seconds: after which no more bytes are taken, nor another try begun.

    Raises:
        FetchError: no answer, or too large.
    """

    until = time.monotonic() + seconds

    def ask(client: httpx.Client) -> tuple[bytes, str | None]:
        with _answer(client, url, headers or {}) as answer:
            if (stated := _length(answer) or 0) > limit:
                raise FetchError(f"{url}: expected {limit} bytes at most; found {stated}")
            content = b"".join(_chunks(answer, Meter(url, limit, until=until)))
            return content, answer.links.get("next", {}).get("url")

    return _persist(url, ask, public=public, until=until)


def get_json(url: str, headers: Mapping[str, str] | None = None) -> tuple[Any, str | None]:
    """Data of a service's answer in JSON, and the address of its next page. Raises FetchError for
    no answer, over MAX_JSON bytes, or something else than JSON."""
    content, following = get_bytes(url, MAX_JSON, headers)
    try:
        return parse_json(content), following
    except ValueError as error:
        what = f"found {content[:40]!r}: is there a log-in page in between?"
        raise FetchError(f"{url}: expected JSON; {what}") from error


def get_size(url: str) -> int | None:
    """The size of a file in bytes, None where the server does not say. Raises FetchError."""

    def ask(client: httpx.Client) -> int | None:
        # No HEAD: some servers know none, and what a GET would hold is not read.
        with _answer(client, url, {}) as answer:
            return _length(answer)

    return _persist(url, ask)


def _length(answer: httpx.Response) -> int | None:
    """The size in bytes that an answer states, None where it states none."""
    text = answer.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,15}", text) else None


def digest(path: Path, remote: Remote) -> str:
    """A file's checksum, of the kind that the service states for it; else sha256."""
    kind = (remote.checksum or "sha256:").partition(":")[0]
    with path.open("rb") as stream:
        value = hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False))
    return f"{kind}:{value.hexdigest()}"


class _Partial:
    """The beginning of a file, NAME.part."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        self.path, self._advance = path, advance
        self.size = path.stat().st_size if path.is_file() else 0
        advance(self.size)

    def discard(self) -> None:
        """Deletes the file: what comes next is another version, or may be."""
        self.path.unlink(missing_ok=True)
        self._advance(-self.size)
        self.size = 0

    def append(self, chunks: Iterable[bytes]) -> None:
        """Writes chunks as they come. Raises OSError, and what `chunks` raises."""
        with naming(self.path), self.path.open("ab") as stream:
            for chunk in chunks:
                stream.write(chunk)
                stream.flush()
                self.size += len(chunk)
                self._advance(len(chunk))


def download(remote: Remote, target: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """Checksum of a file that is brought to `target`: "sha256:...", or of the kind that the service
    states. Goes on where an earlier call, or a try, was cut, if a stated checksum will tell in the
    end whether both parts are of one version.

    Args:
        remote: the file at its service.
        target: where it goes; until it is complete it is NAME.part.
        advance: told how many more bytes are there, a negative number where they were thrown away.

    Raises:
        FetchError: cannot be had, or size or checksum are not what the service states.
        OSError: cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and target.stat().st_size == remote.size:
        checksum = digest(target, remote)
        if remote.checksum in (None, checksum):
            advance(remote.size)
            return checksum
    part = _Partial(target.with_name(f"{target.name}.part"), advance)
    if not remote.checksum or (remote.size is not None and part.size > remote.size):
        part.discard()
    begun = part.size
    if not begun or begun != remote.size:
        try:
            _persist(remote.url, partial(_get_rest, remote, part), lambda: part.size)
        except BaseException:
            if not remote.checksum:  # nothing would tie the rest to it
                part.discard()
            raise
    checksum = digest(part.path, remote)
    if remote.checksum in (None, checksum):
        part.path.replace(target)
        return checksum
    part.discard()
    if begun:  # by an earlier call, from another version
        return download(remote, target, advance)
    raise FetchError(f"{remote.name}: expected {remote.checksum}; found {checksum}: get it again")


def _get_rest(remote: Remote, part: _Partial, client: httpx.Client) -> None:
    """Brings what is missing of a file by one request. Raises _BrokenError, _StatusError or
    httpx.HTTPError where the next try goes on, FetchError where it is another file."""
    if not remote.checksum:
        part.discard()
    headers = dict(remote.headers) | ({"Range": f"bytes={part.size}-"} if part.size else {})
    try:
        with _answer(client, remote.url, headers) as answer:
            total = _total(remote, part, answer)
            limit = MAX_UNKNOWN if total is None else total
            part.append(_chunks(answer, Meter(remote.name, limit, part.size)))
    except _StatusError as error:
        if error.code != 416 or not part.size:  # the file is shorter now than what is here
            raise
        part.discard()
        raise _BrokenError("the file changed meanwhile, starting over") from error
    if total is not None and part.size < total:
        raise _BrokenError(f"the connection ended after {part.size} of {total} bytes")
    # Where nothing says how large it is, an answer of nothing (204, or a proxy's) looks complete.
    if not part.size and remote.size is None and not remote.checksum:
        empty = f"{answer.status_code} {answer.reason_phrase} without a byte"
        raise FetchError(f"{remote.name}: expected a file; found {empty}: try again later")


def _total(remote: Remote, part: _Partial, answer: httpx.Response) -> int | None:
    """The file's size as its answer states it. Starts over where the answer is not the rest."""
    kind = answer.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not remote.name.endswith((".html", ".htm")):
        raise FetchError(f"{remote.url}: expected a file; found a web page: log in there first?")
    total = _length(answer)
    if answer.status_code == 206:
        content_range = answer.headers.get("Content-Range", "")
        stated = re.fullmatch(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})", content_range)
        if not stated or int(stated[1]) != part.size:
            part.discard()
            raise _BrokenError("the server sent another part than asked for, starting over")
        total = int(stated[2])
    elif part.size:  # it ignores ranges, and begins again
        part.discard()
    if total is None:
        return remote.size
    if total > MAX_UNKNOWN if remote.size is None else total != remote.size:
        wanted = f"{MAX_UNKNOWN} bytes at most" if remote.size is None else f"{remote.size} bytes"
        what = f"the server has {total}: try again later"
        raise FetchError(f"{remote.name}: expected {wanted}; {what}")
    return total
