"""Services that hold data sets and weights: lists of their files, and files of the hub's cache.

plan.py asks what an origin has; the weights' fetch brings files by `hub_file`. The hub and its
library, ModelScope and Zenodo are known nowhere else. No answer is read without a bound, and none
is taken for a list that has another form.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlsplit

from ..runtime.text import reason
from .catalogue import Origin
from .download import MAX_UNKNOWN, FetchError, Meter, Remote, UnreachableError, get_json, get_size

MODELSCOPE = "https://www.modelscope.cn"
ZENODO = "https://zenodo.org"
PAGE = 100  # files per request to ModelScope
MAX_PAGES = 10_000
BY_HAND = "bring the archives by hand: --extract PATH"
log = logging.getLogger(__name__)


def list_files(origin: Origin) -> list[Remote]:
    """All files of an origin, as it states them now. Raises FetchError where it cannot be asked, or
    answers something else."""
    try:
        return list(_LISTS[origin.kind](origin.where))
    except UnreachableError as error:
        raise UnreachableError(f"{error}, or {BY_HAND}") from error
    except FetchError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        fault = f"its answer has another form ({reason(error)})"
        raise FetchError(f"{origin}: expected a list of files; {fault}") from error


def _hub(repo: str) -> Iterator[Remote]:
    """Files of a data set on the hub, asked here and not by the hub's library, which has no bound
    on what it reads and how long it tries, and changes its transport with its versions."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    if constants.HF_HUB_OFFLINE:
        raise FetchError(f"HF_HUB_OFFLINE is set: unset it, or {BY_HAND}")
    headers = {k: v for k, v in build_hf_headers().items() if k.lower() == "authorization"}
    page: str | None = f"/api/datasets/{repo}/tree/main?recursive=true"
    for _ in range(MAX_PAGES):
        if page is None:
            return
        rows, page = get_json(f"{constants.ENDPOINT}{page}", headers)
        if page is not None:  # a mirror may name the hub itself, which is not to see who asks
            page = urlsplit(page)._replace(scheme="", netloc="").geturl()
        for file in rows:
            if file["type"] == "file":
                url = hf_hub_url(repo, file["path"], repo_type="dataset")
                checksum = f"sha256:{file['lfs']['oid']}" if file.get("lfs") else None
                yield Remote(file["path"], url, file["size"], checksum, headers)
    raise FetchError(f"hub:{repo}: refused: its list of files does not end")


def _modelscope(repo: str) -> Iterator[Remote]:
    """Files of a data set on ModelScope, whose pages overlap where a file comes meanwhile."""
    base = f"{MODELSCOPE}/api/v1/datasets/{repo}/repo"
    seen: set[str] = set()
    for page in range(1, MAX_PAGES + 1):
        answer, _ = get_json(
            f"{base}/tree?Revision=master&Recursive=True&PageNumber={page}&PageSize={PAGE}"
        )
        if not answer.get("Success", True):
            raise FetchError(f"modelscope:{repo}: {answer.get('Message') or 'it refused'!s:.200}")
        files = answer["Data"]["Files"] or []
        new = [file for file in files if file["Path"] not in seen]
        for file in new:
            seen.add(file["Path"])
            if file["Type"] != "tree":
                url = f"{base}?Revision=master&FilePath={quote(file['Path'], safe='')}"
                checksum = f"sha256:{file['Sha256'].lower()}" if file.get("Sha256") else None
                yield Remote(file["Path"], url, file["Size"], checksum)
        if not new or len(files) < PAGE:
            return
    raise FetchError(f"modelscope:{repo}: refused: its list of files does not end")


def _zenodo(record: str) -> Iterator[Remote]:
    answer, _ = get_json(f"{ZENODO}/api/records/{record}")
    for file in answer["files"]:
        links, checksum = file["links"], file.get("checksum") or ""
        known = checksum if checksum.startswith(("md5:", "sha256:")) else None
        yield Remote(file["key"], links.get("content") or links["self"], file["size"], known)


def _url(url: str) -> Iterator[Remote]:
    yield Remote(url.rpartition("/")[2], url, get_size(url))


_LISTS: dict[str, Callable[[str], Iterator[Remote]]] = {
    "hub": _hub, "modelscope": _modelscope, "zenodo": _zenodo, "url": _url,
}  # fmt: skip


# --- weight files of the hub


def hub_file(repo: str, file: str, revision: str | None, size: int | None, force: bool) -> str:
    """Path of a repository's file in the hub's cache, brought there by the hub's own library.

    `size`: what the file should have, None where that is not known. The library tries for half
    a minute to reach a host that is away, and takes as many bytes as it is given; both end here.

    Raises:
        FetchError: away (UnreachableError), too slow, or of another size.
        Exception: its transports raise almost any type.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils import tqdm

    if not constants.HF_HUB_OFFLINE:
        try:
            get_size(constants.ENDPOINT)
        except UnreachableError:
            raise
        except FetchError:
            log.debug("%s is there, whatever it answers", constants.ENDPOINT)
    meter = Meter(file, size or MAX_UNKNOWN)

    class Metered(tqdm):
        """The library's bar, which is told of bytes before they are written."""

        def update(self, n: float | None = 1) -> bool | None:
            meter.count(int(n or 0))
            return super().update(n)

    return hf_hub_download(repo, file, revision=revision, force_download=force, tqdm_class=Metered)


def trouble(error: Exception, what: str, repo: str, page: str, by_hand: str) -> str:
    """Line on what went wrong with a request to the hub, and on what to do.

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
    why = reason(error)
    return f"the download of {what} broke off ({why}): the same command goes on, or {by_hand}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
