"""Downloads by HTTP: bounded in bytes, tries and patience, continued where they broke off.

What comes lies in NAME.part until its size and sum are those that the service states. A server is
never trusted: not for how much it sends, how slowly, where it redirects to, or whether the rest is
of the same version. Imports no torch and prints nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

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
MAX_JSON = 64 << 20  # bytes; the longest published list of files has under 10 MB
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
    """An answer with another status than success."""

    def __init__(self, answer: httpx.Response) -> None:
        code = answer.status_code
        super().__init__(f"the server answered {code} {answer.reason_phrase}{HINTS.get(code, '')}")
        self.code, self.headers = code, answer.headers


@dataclass(frozen=True)
class Remote:
    """A file on a server. `name`: its path there. `size` in bytes and `checksum` ("sha256:" or
    "md5:" and hex digits) are what the service states, or None. `headers`: to be sent, to the
    first host alone."""

    name: str
    url: str
    size: int | None = None
    checksum: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Meter:
    """Bytes of one stream: no more than `limit` in all, no slower than MIN_RATE."""

    name: str
    limit: int
    size: int = 0

    def __post_init__(self) -> None:
        self._since, self._before = time.monotonic(), self.size

    def count(self, more: int) -> None:
        """Adds bytes that came, before they are kept.

        Raises:
            FetchError: they are more than there may be.
            _BrokenError: they come too slowly.
        """
        self.size += more
        if self.size > self.limit:
            raise FetchError(
                f"{self.name}: expected at most {self.limit} bytes; more came: try again later"
            )
        passed = time.monotonic() - self._since
        if passed < WINDOW:
            return
        if self.size - self._before < MIN_RATE * passed:
            raise _BrokenError(f"under {MIN_RATE} bytes came per second")
        self.__post_init__()


@dataclass
class _Attempts:
    """Failures of one request so far, and whether its host ever answered."""

    url: str
    answered: bool = False
    in_a_row: int = 0
    in_all: int = 0
    furthest: int = 0

    def failed(self, error: Exception, size: int) -> None:
        """Returns when it is time for the next try. `size`: bytes that are there.

        Raises:
            FetchError: there is none.
        """
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, _StatusError) and error.code not in PASSING:
            raise FetchError(f"{self.url}: {reason}") from error
        if size > self.furthest:
            self.furthest, self.in_a_row = size, 0
        self.in_a_row += 1
        self.in_all += 1
        # A slow or busy host is worth waiting for; one that cannot be connected to is away.
        tries = TRIES
        if not self.answered and isinstance(error, httpx.ConnectError):
            tries = FIRST_TRIES
        if not self.answered and isinstance(error, httpx.ConnectTimeout):
            tries = 1  # each of the host's addresses has taken its time already
        if self.in_a_row >= tries or self.in_all >= MOST_TRIES:
            kind = FetchError if self.answered else UnreachableError
            raise kind(f"{self.url}: {reason}: the same command goes on") from error
        pause = max(PAUSES[min(self.in_a_row, len(PAUSES)) - 1], _asked_to_wait(error))
        log.info("%s: %s; trying again in %.0f s", self.url, reason, pause)
        time.sleep(pause)


def _asked_to_wait(error: Exception) -> float:
    """Seconds of Retry-After, which is a number of them or a date (RFC 9110, 10.2.3); 0 without."""
    text = error.headers.get("Retry-After", "") if isinstance(error, _StatusError) else ""
    if text.strip().isdecimal():
        return min(float(text), LONGEST)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST)


def _persist(
    url: str,
    ask: Callable[[httpx.Client, _Attempts], T],
    size: Callable[[], int] = lambda: 0,
    public: bool = False,
) -> T:
    """The value of `ask`, after some tries where the network fails it.

    `size`: how many bytes are there already, by which progress shows. `public`: connect to hosts
    of the public internet alone. Raises FetchError.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url}: expected an address that starts with http:// or https://")
    attempts = _Attempts(url)
    try:
        client = httpx.Client(verify=_certificates(), headers=HEADERS, timeout=TIMEOUT)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise FetchError(f"expected a usable proxy in the environment; {error}") from error
    if public:
        client.event_hooks = {"request": [_public.watch]}
    with client:
        while True:
            try:
                return ask(client, attempts)
            except httpx.InvalidURL as error:
                raise FetchError(f"{url}: expected an address; {error}") from error
            except _public.PrivateError as error:
                raise FetchError(f"{url}: refused: {error}") from error
            except (httpx.HTTPError, _BrokenError, _StatusError) as error:
                attempts.failed(error, size())


@cache
def _certificates() -> ssl.SSLContext:
    """The authorities that are trusted, read once: a list may name a million pictures."""
    return httpx.create_ssl_context()


@contextmanager
def _answer(
    client: httpx.Client, attempts: _Attempts, headers: Mapping[str, str]
) -> Iterator[httpx.Response]:
    """A successful answer whose content is yet to be read. Raises _StatusError, httpx.HTTPError.

    Redirects are followed here, not by the library, which reads all that a redirect holds and
    follows from https to http. It does keep Authorization from other hosts.
    """
    request: httpx.Request | None = client.build_request("GET", attempts.url, headers=headers)
    for _ in range(REDIRECTS + 1):
        assert request is not None  # a redirect has one
        answer = client.send(request, stream=True)
        attempts.answered = True
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
            raise FetchError(f"{attempts.url}: refused: it leads to {new!s:.200}")
    raise FetchError(f"{attempts.url}: refused: it leads on more than {REDIRECTS} times")


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
    url: str, limit: int, headers: Mapping[str, str] | None = None, public: bool = False
) -> tuple[bytes, str | None]:
    """The content of a small file, and the address of the page that follows it, if one is named.

    Args:
        limit: the most bytes that it may have.
        public: refuse hosts that are none of the public internet, also where redirects lead there.

    Raises:
        FetchError: no answer, or too large.
    """

    def ask(client: httpx.Client, attempts: _Attempts) -> tuple[bytes, str | None]:
        with _answer(client, attempts, headers or {}) as answer:
            if (stated := _length(answer) or 0) > limit:
                raise FetchError(f"{url}: expected {limit} bytes at most; found {stated}")
            content = b"".join(_chunks(answer, Meter(url, limit)))
            return content, answer.links.get("next", {}).get("url")

    return _persist(url, ask, public=public)


def get_json(url: str, headers: Mapping[str, str] | None = None) -> tuple[Any, str | None]:
    """What a service answers, as JSON, and the address of the next page of it.

    Raises:
        FetchError: no answer, over MAX_JSON bytes, or something else than JSON.
    """
    content, following = get_bytes(url, MAX_JSON, headers)
    try:
        return json.loads(content), following
    except (ValueError, RecursionError) as error:
        raise FetchError(
            f"{url}: expected JSON; found {content[:40]!r}: is there a log-in page in between?"
        ) from error


def get_size(url: str) -> int | None:
    """The size of a file in bytes, None where the server does not say. Raises FetchError."""

    def ask(client: httpx.Client, attempts: _Attempts) -> int | None:
        # No HEAD: some servers know none, and what a GET would hold is not read.
        with _answer(client, attempts, {}) as answer:
            return _length(answer)

    return _persist(url, ask)


def _length(answer: httpx.Response) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,15}", text) else None


def digest(path: Path, remote: Remote) -> str:
    """A file's checksum, of the kind that the service states for it; else sha256."""
    kind = (remote.checksum or "sha256:").partition(":")[0]
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False))
    return f"{kind}:{found.hexdigest()}"


class _Part:
    """The beginning of a file, NAME.part. That of an earlier call goes on where the service states
    a sum, which tells in the end whether both are of one version; within a call, a strong ETag does
    (a weak one, or a date, does not: RFC 9110, 8.8.1). Otherwise it is begun again."""

    def __init__(self, target: Path, remote: Remote, advance: Callable[[int], None]) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._advance = advance
        self.size = self.path.stat().st_size if self.path.is_file() else 0
        self.tag: str | None = None
        advance(self.size)
        if not remote.checksum or (remote.size is not None and self.size > remote.size):
            self.discard()

    def discard(self) -> None:
        """Throws away what is there."""
        self.path.unlink(missing_ok=True)
        self._advance(-self.size)
        self.size, self.tag = 0, None

    def append(self, chunks: Iterable[bytes]) -> None:
        """Writes what comes. Raises FetchError for the disk, and what `chunks` raises."""
        with _disk_errors(self.path):
            stream = self.path.open("ab")
        with stream:
            for chunk in chunks:
                with _disk_errors(self.path):
                    stream.write(chunk)
                    stream.flush()
                self.size += len(chunk)
                self._advance(len(chunk))


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turns errors of the disk into FetchErrors."""
    try:
        yield
    except OSError as error:
        raise FetchError(f"{path}: {error.strerror or error}") from error


def download(remote: Remote, target: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """Brings a file, and goes on where an earlier call was interrupted.

    `advance` is told how many more bytes are there, a negative number where they were thrown away.
    Returns the checksum, "sha256:..." or of the kind that the service states.

    Raises:
        FetchError: cannot be had, or size or checksum are not what the service states.
    """
    with _disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and target.stat().st_size == remote.size:
            found = digest(target, remote)
            if remote.checksum in (None, found):
                advance(remote.size)
                return found
        part = _Part(target, remote, advance)
    while True:
        begun = part.size
        if not begun or begun != remote.size:
            try:
                _persist(remote.url, partial(_get_rest, remote, part), lambda: part.size)
            except BaseException:
                if not remote.checksum:  # nothing would tie the rest to it
                    part.discard()
                raise
        with _disk_errors(target):
            found = digest(part.path, remote)
            if remote.checksum in (None, found):
                part.path.replace(target)
                return found
            part.discard()
        if not begun:
            raise FetchError(
                f"{remote.name}: expected {remote.checksum}; found {found}: get it again"
            )
        # The beginning, from an earlier call, was of another version.


def _get_rest(remote: Remote, part: _Part, client: httpx.Client, attempts: _Attempts) -> None:
    """One request for what is missing of a file, until its end.

    Raises:
        _BrokenError, _StatusError, httpx.HTTPError: the next try goes on.
        FetchError: it is another file.
    """
    headers = dict(remote.headers)
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.tag and not remote.checksum:
            headers["If-Range"] = part.tag
    try:
        with _answer(client, attempts, headers) as answer:
            total = _total(remote, part, answer)
            limit = MAX_UNKNOWN if total is None else total
            part.append(_chunks(answer, Meter(remote.name, limit, part.size)))
    except _StatusError as error:
        if error.code != 416 or not part.size:
            raise
        if error.headers.get("Content-Range") == f"bytes */{part.size}":
            return  # all of it is there
        part.discard()
        raise _BrokenError("the file changed meanwhile, starting over") from error
    if total is not None and part.size < total:
        raise _BrokenError(f"the connection ended after {part.size} of {total} bytes")
    # Where nothing says how large it is, an answer of nothing (204, or a proxy's) looks complete.
    if not part.size and remote.size is None and not remote.checksum:
        found = f"{answer.status_code} {answer.reason_phrase} without a byte"
        raise FetchError(f"{remote.name}: expected a file; found {found}: try again later")


def _total(remote: Remote, part: _Part, answer: httpx.Response) -> int | None:
    """The file's size as its answer states it. Starts over where the answer is not the rest."""
    kind = answer.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not remote.name.endswith((".html", ".htm")):
        raise FetchError(f"{remote.url}: expected a file; found a web page: log in there first?")
    tag = answer.headers.get("ETag", "")
    if answer.status_code == 206:
        content_range = answer.headers.get("Content-Range", "")
        stated = re.fullmatch(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})", content_range)
        same = remote.checksum or (part.tag and part.tag == tag)
        if not stated or int(stated[1]) != part.size or not same:
            part.discard()
            raise _BrokenError("the file changed meanwhile, starting over")
        total: int | None = int(stated[2])
    else:
        if part.size:
            part.discard()
        total = _length(answer)
    part.tag = tag if tag.startswith('"') else None
    if total is None:
        return remote.size
    if total != remote.size and (remote.size is not None or total > MAX_UNKNOWN):
        wanted = f"{MAX_UNKNOWN} bytes at most"
        if remote.size is not None:
            wanted = f"{remote.size} bytes, as listed"
        raise FetchError(
            f"{remote.name}: expected {wanted}; the server has {total}: try again later"
        )
    return total


def other_content(head: bytes) -> str | None:
    """What stands in a file's place when its download went wrong, and what to do: a web page, a
    git-lfs pointer, nothing; None for anything else. `head`: its first 512 bytes."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page: download the file itself, in a browser"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of git-lfs: download the file that it stands for"
    return None if head else "an empty file"


def is_other_file(path: Path) -> str | None:
    """What `other_content` says of a file."""
    with path.open("rb") as stream:
        return other_content(stream.read(512))
