"""Pictures, tables and archives at addresses: buckets by fsspec, http and https by download.py.

sources.py lists through here; the bytes of a picture come in the process that decodes it, which
makes a file system of its own. Credentials are those that each store's library finds in the
environment, and no address can name others, chain file systems, or reach a local file.
"""

from __future__ import annotations

import errno
import importlib.util
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from datasets import LayoutError, is_picture
from datasets._archives import MAX_BYTES
from datasets._paths import relative

from ..config import ConfigError
from ..runtime.text import reason
from .download import MAX_UNKNOWN, FetchError, Remote, UnreachableError, download, get_bytes

WEB = ("http", "https")
# Protocol -> the package that reads it; fsspec finds it by the protocol.
PROTOCOLS = {
    "s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub",
    **dict.fromkeys(WEB, "httpx"),
}  # fmt: skip
PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
PICTURE_SECONDS = 120.0  # that the bytes of a picture may take, whatever a server does
PAUSES = (0.5, 2.0)  # seconds between tries of a store, whose library tries again itself
UNREACHED = "not reached: "  # begins the error of a picture that another day may be there
# Entries of a listing that change with a file, by store.
MARKS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "LastModified", "last_modified")
DEFINITE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
RANGE_NOT_SATISFIABLE = 416  # HTTP status
T = TypeVar("T")


def protocol_of(text: str) -> str:
    """The protocol that a text begins with, in lower case; '' for a path."""
    match = PROTOCOL.match(text)
    return match[1].lower() if match else ""


def path_of(url: str) -> str:
    """The part of an address that ends with the name of a file, of which in buckets `?` and `#` may
    be letters."""
    return urlsplit(url).path if protocol_of(url) in WEB else url


def check_protocol(protocol: str, what: str) -> None:
    """Raises ConfigError for a protocol that is none of PROTOCOLS, or whose package is missing;
    `what` named it."""
    if protocol not in PROTOCOLS:
        choices = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise ConfigError(f"{what}: expected a path, or one of {choices}; found {protocol}://")
    package = PROTOCOLS[protocol]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{what}: expected the package {package}, to read {protocol}://; found none: "
            f"pip install {package}"
        )


def _store(url: str) -> tuple[Any, str]:
    """The file system of an address that is none of the web's, and the path in it."""
    import fsspec

    # The protocol alone makes it: fsspec.open would heed `::`, and hosts and names in the address.
    # Kept listings would grow with what was listed.
    store = fsspec.filesystem(protocol_of(url), use_listings_cache=False)
    return store, store._strip_protocol(url)


def _tried(url: str, ask: Callable[[], T]) -> T:
    """The value of `ask`, tried again where another try may help. Raises OSError of one line."""
    for pause in (*PAUSES, None):
        try:
            return ask()
        except DEFINITE as error:
            raise OSError(f"{type(error).__name__}: {reason(error)}") from error
        # Expired credentials and wrong clocks too: another try does not help, another day does.
        except PermissionError as error:
            raise OSError(f"{UNREACHED}PermissionError: {reason(error)}") from error
        # Libraries of stores raise classes of their own, which tell by no base what may pass.
        except Exception as error:
            if pause is None:
                raise OSError(UNREACHED + reason(error)) from error
        time.sleep(pause)
    raise AssertionError(url)


def _content(store: Any, path: str) -> bytes:
    """The bytes of a file, MAX_BYTES + 1 at most. Raises what the store's library does."""
    try:
        return bytes(store.cat_file(path, start=0, end=MAX_BYTES + 1))
    except Exception as error:
        # No range of an empty object can be had (HTTP 416), which s3fs calls by the same number as
        # much else.
        codes = [getattr(error, name, None) for name in ("errno", "code", "status", "status_code")]
        of_range = errno.EINVAL in codes or RANGE_NOT_SATISFIABLE in codes
        if of_range and store.info(path)["size"] == 0:
            return b""
        raise


@dataclass(frozen=True)
class RemotePicture:
    """A function that brings a picture's bytes. `public`: from hosts of the public internet alone,
    as for all that a table names."""

    url: str
    public: bool

    def __call__(self) -> bytes:
        """The bytes, 1 GiB at most. Raises OSError."""
        if protocol_of(self.url) in WEB:
            return self._from_web()
        store, path = _store(self.url)
        # One request, which states no size but takes no more than one byte over the limit.
        content = _tried(self.url, lambda: _content(store, path))
        if len(content) > MAX_BYTES:
            raise OSError("too large: over 1 GiB")
        return content

    def _from_web(self) -> bytes:
        try:
            return get_bytes(self.url, MAX_BYTES, public=self.public, seconds=PICTURE_SECONDS)[0]
        except UnreachableError as error:
            raise OSError(UNREACHED + str(error)) from error
        except FetchError as error:
            raise OSError(str(error)) from error


def is_folder(url: str) -> bool:
    """Whether an address stands for what lies below it. Raises LayoutError: nothing is there, or
    its store does not answer."""
    if protocol_of(url) in WEB:
        return False
    store, path = _store(url)
    return bool(_listing(url, lambda: store.info(path))["type"] == "directory")


def _listing(url: str, ask: Callable[[], T]) -> T:
    """`_tried` for what is listed. Raises LayoutError, which ends the run: --resume goes on."""
    try:
        return _tried(url, ask)
    except OSError as error:
        raise LayoutError(f"{url}: expected files; found none that can be had ({error})") from error


def walk(url: str, wanted: Callable[[str], bool] = is_picture) -> Iterator[str]:
    """Addresses of the files below a folder whose names are `wanted`, in the order of keys, as
    datasets walks local folders: hidden ones are left out. Raises LayoutError."""
    for name in _names(url, wanted):
        if name.endswith("/"):
            yield from walk(below(url, name[:-1]), wanted)
        else:
            yield below(url, name)


def _names(url: str, wanted: Callable[[str], bool]) -> list[str]:
    """Sorted names of what `walk` heeds in a folder, those of folders with a slash. The entries
    that tell them, many times as large, are let go with this function."""
    store, path = _store(url)
    entries = _listing(url, lambda: store.ls(path, detail=True))
    names = []
    for entry in entries:
        name = str(entry["name"]).rstrip("/").rpartition("/")[2]
        # A store without folders may have a file of a folder's name that stands for it.
        if not name or name.startswith(".") or entry["name"].rstrip("/") == path.rstrip("/"):
            continue
        if entry["type"] == "directory":
            names.append(f"{name}/")
        elif wanted(name):
            names.append(name)
    return sorted(names)


def below(url: str, name: str) -> str:
    """The address of what has a name in a folder."""
    return f"{url.rstrip('/')}/{name}"


def beside(table: str, name: str) -> str:
    """The address of a picture that a table at an address names by a path from its folder. Raises
    LayoutError for one that leads out of it."""
    path = relative(name.strip(), Path(table), "write an address for a picture elsewhere")
    if protocol_of(table) not in WEB:
        return below(table.rpartition("/")[0], path)
    parts = urlsplit(table)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0]}/{quote(path)}"


def version(url: str) -> str:
    """Size and mark of a file, which change when it does; '' where nothing tells. Raises
    LayoutError."""
    if protocol_of(url) in WEB:
        return ""
    store, path = _store(url)
    info = _listing(url, lambda: store.info(path))
    mark = next((info[name] for name in MARKS if info.get(name)), info.get("created", ""))
    return f"{info['size']}:{mark}"


def bring(url: str, folder: Path) -> Path:
    """The file of a copy of a table or an archive in a folder.

    Raises:
        LayoutError: it cannot be had.
        OSError: larger than the disk has room for, or cannot be written.
    """
    # The name alone says what it is; a stranger's may be too long for a file.
    file = folder / f"copy{Path(path_of(url)).suffix.lower()}"
    if protocol_of(url) in WEB:
        try:
            download(Remote(url, url), file)
        except FetchError as error:
            raise LayoutError(f"{error}") from error
        return file
    store, path = _store(url)
    size = int(_listing(url, lambda: store.info(path))["size"])
    if size > min(MAX_UNKNOWN, shutil.disk_usage(folder).free):
        raise OSError(f"{url}: expected room for {size} bytes in {folder}; found less: set TMPDIR")
    _listing(url, lambda: store.get_file(path, str(file)))
    return file
