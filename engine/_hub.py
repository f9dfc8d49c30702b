"""The Hugging Face hub: what went wrong with it, in one line. Imports no torch."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path


def is_other_file(path: Path) -> str | None:
    """What a file is that comes in another's place when a download goes wrong, and what to do: a
    web page, a git-lfs pointer, nothing; None when it is none of them."""
    with path.open("rb") as stream:
        head = stream.read(512)
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page: download the file itself, in a browser"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of git-lfs: download the file that it stands for"
    return None if head else "an empty file"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_away(error: BaseException) -> bool:
    """Whether no connection came about. The hub's client changed its transport more than once, so
    that its errors are known by what they wrap, or by name."""
    number = error.errno if isinstance(error, OSError) else None
    return (
        isinstance(error, (ConnectionRefusedError, socket.gaierror))
        or number in (errno.ENETUNREACH, errno.EHOSTUNREACH)
        or type(error).__name__ in ("ConnectError", "ConnectTimeout", "ConnectTimeoutError")
    )


def trouble(error: Exception, what: str, repo: str, page: str, by_hand: str) -> str:
    """What went wrong with a request to the hub, and what to do, in one line.

    `what`: the thing asked for, with its repository; `page`: the path of that on the hub's site;
    `by_hand`: how to do without the hub.
    """
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{page}"
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in _causes(error)):
        return f"HF_HUB_OFFLINE is set, and {what} is not in the cache: unset it, or {by_hand}"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} wants its terms accepted: do so at {page}, then log in: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"found no repository {repo}, or no right to read it, at {page}: {by_hand}"
    if isinstance(error, errors.LocalEntryNotFoundError) or any(map(_is_away, _causes(error))):
        return f"cannot reach {constants.ENDPOINT} for {what}: check the connection, or {by_hand}"
    if isinstance(error, (errors.RevisionNotFoundError, errors.EntryNotFoundError)):
        return f"found no {what} at {page}: look there for its new name, or {by_hand}"
    if any(getattr(cause, "errno", None) == errno.ENOSPC for cause in _causes(error)):
        return f"no space left in {constants.HF_HUB_CACHE}: free some, or set HF_HOME elsewhere"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the download of {what} broke off ({reason}): the same command goes on, or {by_hand}"
