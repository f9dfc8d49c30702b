"""Pictures by lists of their addresses, which some data sets publish in place of the pictures.

For scripts/fetch_data.py --urls. Hosts are asked side by side, each for one picture after the other
and with pauses. A table beside the pictures says what became of every address, so that a later call
goes on. Nothing that is no picture is kept, and no host of the user's own network is asked. Imports
no torch.
"""

from __future__ import annotations

import csv
import io
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import httpx

from datasets._csv import plain
from datasets._images import digest

from ..runtime.files import other_content, write_file
from ..runtime.progress import Progress
from ..runtime.table_writer import TableWriter
from .download import FetchError, UnreachableError, get_bytes

TABLE = "addresses.csv"
COLUMNS = ("url", "image", "caption", "state", "error")
HERE, DEAD, AWAY = "here", "dead", "away"  # away: the host could not be reached, and may be later
MAX_LIST, MAX_PICTURE = 10**9, 20 * 10**6  # bytes
HOSTS = 32  # asked side by side
REASONS = 5  # why addresses are dead that the log names
CONNECT = (httpx.ConnectError, httpx.ConnectTimeout)
# How files of each kind begin, and what stands at byte 8 of WebP, AVIF and HEIF.
BEGINNINGS = {
    b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n\x1a\n": ".png", b"GIF87a": ".gif", b"GIF89a": ".gif",
    b"II*\0": ".tif", b"MM\0*": ".tif",
}  # fmt: skip
BRANDS = {b"WEBP": ".webp", b"avif": ".avif", b"heic": ".heic", b"heix": ".heic", b"mif1": ".heif"}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Address of a picture, and its caption, '' where the list has none."""

    url: str
    caption: str = ""

    @property
    def host(self) -> str:
        """The host, '' of an address that names none."""
        try:
            return urlsplit(self.url).hostname or ""
        except ValueError:
            return ""


@dataclass(frozen=True)
class Manners:
    """Manners towards hosts. `pace`: seconds between two pictures of one; `private`: those of
    private networks, too; `max_size`: the most bytes of a picture."""

    pace: float = 0.5
    private: bool = False
    max_size: int = MAX_PICTURE


def read_list(location: str, limit: int | None = None) -> list[Address]:
    """Addresses of a list, each once, in its order.

    Args:
        location: a file, or its address. A line is an address, or cells between tabs, in a .csv
            between commas; the first cell with :// is the address. The caption is the column
            `caption` of a header, or the other one of two cells.
        limit: only so many lines, the first.

    Raises:
        FetchError: the list cannot be had, names no address, or is no text.
        OSError: it cannot be read.
    """
    with _opened(location) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
        try:
            named = list(islice(_addresses(text, location.endswith(".csv")), limit))
        except csv.Error as error:
            raise FetchError(f"{location}: expected a list of addresses; {error}") from error
    if not named:
        raise FetchError(f"{location}: expected an address a line, or cells with tabs; found none")
    addresses: dict[str, Address] = {}
    for address in named:
        addresses.setdefault(address.url, address)
    if again := len(named) - len(addresses):
        log.info("%s: %d of %d addresses are named before", location, again, len(named))
    return list(addresses.values())


def _opened(location: str) -> BinaryIO:
    """The bytes of a list. Raises FetchError, OSError."""
    if location.startswith(("http://", "https://")):
        return io.BytesIO(get_bytes(location, MAX_LIST)[0])
    return Path(location).open("rb")


def _addresses(text: Iterable[str], commas: bool) -> Iterator[Address]:
    """Addresses in the lines of a list, below a header if it has one. Raises csv.Error."""
    rows = csv.reader(text) if commas else csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    header: list[str] | None = None
    for cells in rows:
        row = [cell.strip() for cell in cells]
        url = next((cell for cell in row if "://" in cell), None)
        if header is None:
            header = [] if url else [name.lower() for name in row]
            if not url:
                continue
        if any(row):
            url = url or row[-1]  # no address, which the table will say
            # Rows of such lists lack their last columns as often as not, or have one too many.
            named = dict(zip(header, row, strict=False))
            other = next((cell for cell in row if cell != url), "") if len(row) == 2 else ""
            yield Address(url, named.get("caption", other))


def suffix_of(content: bytes) -> str | None:
    """The extension of a picture by how its file begins, None for anything else."""
    if content[:4] == b"RIFF" or content[4:8] == b"ftyp":
        return BRANDS.get(content[8:12])
    return next((kind for start, kind in BEGINNINGS.items() if content.startswith(start)), None)


def _keep(address: Address, folder: Path, manners: Manners) -> str:
    """Path below `folder` of the picture, which its content names: where many addresses answer with
    the same "no longer here", that is one file. Raises FetchError, OSError."""
    content, _ = get_bytes(address.url, manners.max_size, public=not manners.private)
    suffix = suffix_of(content)
    if suffix is None:
        what = other_content(content[:512]) or "something else"
        raise FetchError(f"{address.url}: expected a picture; found {what.partition(':')[0]}")
    name = digest(content)
    path = folder / name[:2] / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_file(path, content)
    return path.relative_to(folder).as_posix()


@dataclass(frozen=True)
class _Run:
    """State of one call that its threads share: the table, the bar, and whether to stop."""

    folder: Path
    manners: Manners
    table: TableWriter
    bar: Progress
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def note(self, address: Address, state: str, image: str = "", error: str = "") -> None:
        """Adds a row on what became of an address."""
        error = " ".join(error.removeprefix(f"{address.url}: ").split())
        with self.lock:
            self.table.append([(address.url, image, address.caption, state, error)])
            self.bar.advance(1)

    def ask_host(self, addresses: Sequence[Address]) -> None:
        """Fetches the pictures of one host, until `stop` is set."""
        for number, address in enumerate(addresses):
            if self.stop.wait(self.manners.pace if number else 0):
                return
            try:
                self.note(address, HERE, _keep(address, self.folder, self.manners))
            except UnreachableError as error:
                if isinstance(error.__cause__, CONNECT):  # and so are the rest of its pictures
                    for other in addresses[number:]:
                        self.note(other, AWAY, error=str(error).partition(": ")[2])
                    return
                self.note(address, DEAD, error=str(error))
            except FetchError as error:
                self.note(address, DEAD, error=str(error))


def bring_all(
    addresses: Sequence[Address], folder: Path, manners: Manners, retry: bool = False
) -> Counter[str]:
    """Numbers of addresses that are HERE, DEAD and AWAY, when what was not there yet is fetched.

    Args:
        addresses: of the pictures.
        folder: where they go, and the table of what became of each.
        manners: how hosts are asked.
        retry: ask for dead ones again, too.

    Raises:
        ConfigError: the table there is another one.
        OSError: a file cannot be written; the same call goes on.
    """
    path = folder / TABLE
    if path.exists():
        _forget(path, (AWAY, DEAD) if retry else (AWAY,))
    with TableWriter(path, COLUMNS, ("url",), resume=True) as table:
        hosts: dict[str, list[Address]] = {}
        todo = [a for a in addresses if (a.url,) not in table.done]
        for address in todo:
            hosts.setdefault(address.host, []).append(address)
        with Progress(len(todo), "fetching") as bar, ThreadPoolExecutor(HOSTS) as pool:
            run = _Run(folder, manners, table, bar)
            tasks = [pool.submit(run.ask_host, of_host) for of_host in hosts.values()]
            try:
                for task in as_completed(tasks):
                    task.result()
            finally:  # nothing, or an interruption
                run.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
    return _summary(path, {address.url for address in addresses})


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        yield from csv.reader(stream)


def _forget(path: Path, states: Sequence[str]) -> None:
    """Takes the addresses in some states off a table, and a last line that was cut off."""
    TableWriter(path, COLUMNS, ("url",), resume=True).close()
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(r for r in _rows(path) if r[3] not in states)
    write_file(path, text.getvalue())


def _summary(path: Path, urls: set[str]) -> Counter[str]:
    """Counts by state of the addresses that were asked for; the log has why some are dead."""
    rows = [row for row in _rows(path) if plain(row[0]) in urls]
    images = [row[1] for row in rows if row[1]]
    if again := len(images) - len(set(images)):
        log.info("%d addresses have the same picture as another, perhaps a notice", again)
    for reason, count in Counter(row[4] for row in rows if row[4]).most_common(REASONS):
        log.info("%d: %s", count, reason)
    return Counter(row[3] for row in rows)
