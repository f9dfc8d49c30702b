"""Downloads by HTTP that go on where they broke off, and are checked as they come."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

TRIES = 5  # in a row without a byte of progress
TIMEOUT = 60.0  # seconds without a byte
PAUSES = (1.0, 2.0, 5.0, 15.0)  # seconds between tries
CHUNK = 1 << 18  # bytes; what an interruption may lose
AGENT = "synthetic-picture-detectors"
PASSING = (408, 425, 429, 500, 502, 503, 504)
NO_HEAD = (403, 405, 501)  # answers of servers that know GET alone, or signed an address for it
LONGEST = 120.0  # seconds; most that a server may ask to wait
log = logging.getLogger(__name__)


class DownloadError(ValueError):
    """A file cannot be had, or is not what its service says; the message is one line."""


class UnreachableError(DownloadError):
    """A host does not answer at all, so that others of its files need not be tried."""


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


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects by HTTP alone, and shows no other host what was meant for the first."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme, new.scheme) == ("https", "http"):
            raise DownloadError(f"{req.full_url}: refused: it leads to {newurl:.200}")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            request.remove_header("Authorization")
        return request


def request(
    url: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> http.client.HTTPResponse:
    """An answered request. Raises HTTPError, other OSErrors, HTTPException, DownloadError."""
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url}: expected an address that starts with http:// or https://")
    sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", **(headers or {})}
    opener = urllib.request.build_opener(_Redirects)
    return opener.open(urllib.request.Request(url, headers=sent, method=method), timeout=TIMEOUT)


def get_json(url: str) -> Any:
    """What a service answers, as JSON. Raises DownloadError."""
    return _tried(url, lambda: _read_json(url))


def _read_json(url: str) -> Any:
    with request(url) as answer, _cuts():
        content = answer.read()
    try:
        return json.loads(content)
    except ValueError as error:
        raise DownloadError(
            f"{url}: expected JSON; found {content[:40]!r}: is there a log-in page in between?"
        ) from error


def get_size(url: str) -> int | None:
    """The size of a file in bytes, None where the server does not say. Raises DownloadError."""

    def ask() -> int | None:
        try:
            answer = request(url, method="HEAD")
        except urllib.error.HTTPError as error:
            if error.code not in NO_HEAD:
                raise
            error.close()
            answer = request(url)  # what it holds is not read
        with answer:
            length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None

    return _tried(url, ask)


def _tried(url: str, ask: Callable[[], Any]) -> Any:
    """What `ask` returns, after some tries where the network fails it."""
    tries = _Tries(url)
    while True:
        try:
            return ask()
        except (OSError, http.client.HTTPException) as error:
            tries.failed(error)


class _CutError(OSError):
    """The connection ended before the file did."""


@contextmanager
def _cuts() -> Iterator[None]:
    """For reading an answer that has begun: whatever breaks then, the host is there."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(_reason(error)) from error


class _Tries:
    """Waits after each failure of a request, and gives up after some."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._count = 0

    def succeeded(self) -> None:
        self._count = 0

    def failed(self, error: Exception) -> None:
        """Returns when it is time for the next try.

        Raises:
            DownloadError: there is none.
        """
        reason = _reason(error)
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            if error.code not in PASSING:
                raise DownloadError(f"{self._what}: {reason}") from error
        self._count += 1
        if self._count >= TRIES:
            kind = DownloadError if _answered(error) else UnreachableError
            raise kind(f"{self._what}: {reason}: the same command goes on") from error
        pause = max(PAUSES[min(self._count, len(PAUSES)) - 1], _asked_to_wait(error))
        log.info("%s: %s; trying again in %.0f s", self._what, reason, pause)
        time.sleep(pause)


def _answered(error: Exception) -> bool:
    """Whether a host sent anything before a request failed."""
    if isinstance(error, http.client.RemoteDisconnected):
        return False
    return isinstance(error, (urllib.error.HTTPError, http.client.HTTPException, _CutError))


def _asked_to_wait(error: Exception) -> float:
    """Seconds of Retry-After, which is a number of them or a date (RFC 9110, 10.2.3); 0 without."""
    text = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    if text.strip().isdecimal():
        return min(float(text), LONGEST)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        hints = {
            401: ": it wants you to log in",
            403: ": it wants you to log in, or to accept its terms",
            404: ": it is not there any more",
        }
        return f"the server answered {error.code} {error.reason}{hints.get(error.code, '')}"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return " ".join(str(cause).split())[:200] or type(cause).__name__


def _hash(remote: Remote) -> hashlib._Hash:
    """A new hash of the kind that the service states, sha256 where it states none."""
    return hashlib.new((remote.checksum or "sha256:").partition(":")[0], usedforsecurity=False)


def digest(path: Path, remote: Remote, advance: Callable[[int], None]) -> str:
    """A file's checksum, of the kind that the service states for it."""
    made = _hash(remote)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            made.update(chunk)
            advance(len(chunk))
    return f"{made.name}:{made.hexdigest()}"


def _read(answer: http.client.HTTPResponse) -> bytes:
    with _cuts():
        return answer.read(CHUNK)


class _Part:
    """The beginning of a file, beside it as NAME.part, and in NAME.part.json what it is of."""

    def __init__(self, target: Path, remote: Remote, advance: Callable[[int], None]) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        self._listed = {"size": remote.size, "checksum": remote.checksum}
        self._advance = advance
        self._remote = remote
        self.size = 0
        self.sum = _hash(remote)
        self.seen: dict[str, str] = {}
        self._go_on()

    def _go_on(self) -> None:
        """Takes what is there, if it is of the same file; reads it for the checksum."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            same = {key: note.get(key) for key in self._listed} == self._listed
            self.seen = dict(note["seen"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            same = False
        if not same or not self.path.is_file():
            self.restart()
            return
        with self.path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                self._count(chunk)

    def _count(self, chunk: bytes) -> None:
        self.sum.update(chunk)
        self.size += len(chunk)
        self._advance(len(chunk))

    @property
    def digest(self) -> str:
        return f"{self.sum.name}:{self.sum.hexdigest()}"

    def restart(self) -> None:
        """Throws away what is there."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._advance(-self.size)
        self.size, self.seen = 0, {}
        self.sum = _hash(self._remote)

    def append(self, answer: http.client.HTTPResponse) -> None:
        """Writes what comes. Raises OSError when the connection breaks, DownloadError for the
        disk."""
        self.seen = {
            key: answer.headers[key] for key in ("ETag", "Last-Modified") if key in answer.headers
        }
        with _disk_errors(self.path):
            note = json.dumps(self._listed | {"seen": self.seen})
            self._note.write_text(note, encoding="utf-8")
            stream = self.path.open("ab")
        try:
            while chunk := _read(answer):
                with _disk_errors(self.path):
                    stream.write(chunk)
                    stream.flush()
                self._count(chunk)
        finally:
            stream.close()

    def finish(self, target: Path) -> None:
        with _disk_errors(target):
            self.path.touch()  # where it has no bytes
            self.path.replace(target)
            self._note.unlink(missing_ok=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turns errors of the disk into DownloadErrors: those of the network are OSErrors too."""
    try:
        yield
    except OSError as error:
        raise DownloadError(f"{path}: {error.strerror or error}") from error


def download(remote: Remote, target: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """Brings a file, and goes on where an earlier call was interrupted.

    What came so far is kept as `target`.part; a server that ignores ranges, and a file that
    changed meanwhile, start over. `advance` is told how many more bytes are there, a negative
    number where they were thrown away. Returns the checksum, "sha256:..." or as the service states.

    Raises:
        DownloadError: cannot be had, or size or checksum are not what the service states.
    """
    with _disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and target.stat().st_size == remote.size:
            found = digest(target, remote, advance)
            if remote.checksum in (None, found):
                return found
            advance(-target.stat().st_size)
        part = _Part(target, remote, advance)
    tries, furthest = _Tries(remote.url), part.size
    while part.size != remote.size:
        try:
            if _more(remote, part):
                break
        except (OSError, http.client.HTTPException) as error:
            if part.size > furthest:
                furthest = part.size
                tries.succeeded()
            tries.failed(error)
    if remote.checksum is not None and part.digest != remote.checksum:
        part.restart()
        raise DownloadError(
            f"{remote.name}: expected {remote.checksum}; found {part.digest}: get it again"
        )
    part.finish(target)
    return part.digest


def _more(remote: Remote, part: _Part) -> bool:
    """One request for what is missing. Returns whether the file is complete.

    Raises:
        OSError, HTTPException: the connection broke.
        DownloadError: it is another file.
    """
    if remote.size is not None and part.size > remote.size:
        part.restart()
    headers = dict(remote.headers)
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if validator := _validator(remote, part):
            headers["If-Range"] = validator
    try:
        answer = request(remote.url, headers)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not part.size:
            raise
        error.close()
        if remote.size is None and error.headers.get("Content-Range") == f"bytes */{part.size}":
            return True
        part.restart()
        return False
    with answer:
        total = _total(remote, part, answer)
        part.append(answer)
    if total is not None and part.size > total:
        part.restart()
        raise DownloadError(f"{remote.name}: expected {total} bytes; more came: try again later")
    if total is not None and part.size < total:
        raise _CutError(f"the connection ended after {part.size} of {total} bytes")
    return True


def _validator(remote: Remote, part: _Part) -> str | None:
    """What tells that the rest is of the same file; a stated checksum tells it in the end."""
    if remote.checksum is not None:
        return None
    tag = part.seen.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else part.seen.get("Last-Modified")


def _total(remote: Remote, part: _Part, answer: http.client.HTTPResponse) -> int | None:
    """The file's size as the answer states it. Starts over where the answer is not the rest."""
    kind = answer.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not remote.name.endswith((".html", ".htm")):
        raise DownloadError(f"{remote.url}: expected a file; found a web page: log in there first?")
    total = None
    if answer.status == 206:
        stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        same = remote.checksum is not None or all(
            answer.headers.get(key) == value for key, value in part.seen.items()
        )
        if not stated or int(stated[1]) != part.size or not same:
            part.restart()
            raise _CutError("the file changed meanwhile, starting over")
        total = int(stated[2])
    else:
        if part.size:
            part.restart()
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
    if total is not None and remote.size is not None and total != remote.size:
        raise DownloadError(
            f"{remote.name}: expected {remote.size} bytes, as listed; the server has {total}: "
            "try again later"
        )
    return remote.size if total is None else total
