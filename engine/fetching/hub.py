"""Weight files of the Hugging Face hub, and what went wrong with it, in one line.

Files go by the hub's own library into its cache, which other programs share. Imports no torch.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from pathlib import Path

from .download import MAX_UNKNOWN, DownloadError, Meter, UnreachableError, get_size

log = logging.getLogger(__name__)


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


def hub_file(repo: str, file: str, revision: str | None, size: int | None, force: bool) -> str:
    """Path of a repository's file in the hub's cache, brought there by the hub's own library.

    `size`: what the file should have, None where that is not known. The library tries for half
    a minute to reach a host that is away, and takes as many bytes as it is given; both end here.

    Raises:
        DownloadError, UnreachableError: away, too slow, or of another size.
        Exception: its transports raise almost any type.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils import tqdm

    if not constants.HF_HUB_OFFLINE:
        try:
            get_size(constants.ENDPOINT)
        except UnreachableError:
            raise
        except DownloadError:
            log.debug("%s is there, whatever it answers", constants.ENDPOINT)
    meter = Meter(file, size or MAX_UNKNOWN)

    class Metered(tqdm):
        """The library's bar, which is told of bytes before they are written."""

        def update(self, n: float | None = 1) -> bool | None:
            meter.count(int(n or 0))
            return super().update(n)

    return hf_hub_download(repo, file, revision=revision, force_download=force, tqdm_class=Metered)


def trouble(error: Exception, what: str, repo: str, page: str, by_hand: str) -> str:
    """What went wrong with a request to the hub, and what to do, in one line.

    `what`: the thing asked for, with its repository; `page`: the path of that on the hub's site;
    `by_hand`: how to do without the hub.
    """
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{page}"
    causes = list(_causes(error))
    for kinds, text in (
        (errors.OfflineModeIsEnabled,
         f"HF_HUB_OFFLINE is set, and {what} is not in the cache: unset it, or {by_hand}"),
        (errors.GatedRepoError,
         f"{repo} wants its terms accepted: do so at {page}, then log in: hf auth login"),
        (errors.RepositoryNotFoundError,
         f"found no repository {repo}, or no right to read it, at {page}: {by_hand}"),
        ((UnreachableError, errors.LocalEntryNotFoundError),
         f"cannot reach {constants.ENDPOINT} for {what}: check the connection, or {by_hand}"),
        ((errors.RevisionNotFoundError, errors.EntryNotFoundError),
         f"found no {what} at {page}: look there for its new name, or {by_hand}"),
    ):  # fmt: skip
        if any(isinstance(cause, kinds) for cause in causes):
            return text
    if any(getattr(cause, "errno", None) == errno.ENOSPC for cause in causes):
        return f"no space left in {constants.HF_HUB_CACHE}: free some, or set HF_HOME elsewhere"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the download of {what} broke off ({reason}): the same command goes on, or {by_hand}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
