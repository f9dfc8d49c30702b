"""What the services that hold data sets say they have: names, sizes and checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from . import _http
from ._http import DownloadError, Remote
from ._hub import trouble
from .sources import Origin

MODELSCOPE = "https://www.modelscope.cn"
ZENODO = "https://zenodo.org"
PAGE = 100  # files per request
BY_HAND = "bring the archives by hand: --extract PATH"


def list_files(origin: Origin) -> list[Remote]:
    """All files of an origin, as it states them now.

    Raises:
        DownloadError: it cannot be asked, or answers something else.
    """
    ask: dict[str, Callable[[str], Iterator[Remote]]] = {
        "hub": _hub, "modelscope": _modelscope, "zenodo": _zenodo, "url": _url,
    }  # fmt: skip
    try:
        return list(ask[origin.kind](origin.where))
    except (KeyError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"{origin}: expected a list of files; its answer has another form ({error!r:.80})"
        ) from error


def _hub(repo: str) -> Iterator[Remote]:
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    try:
        found = list(HfApi().list_repo_tree(repo, repo_type="dataset", recursive=True))
    # Its transports raise almost any type.
    except Exception as error:
        why = trouble(error, f"the list of files of {repo}", repo, f"datasets/{repo}", BY_HAND)
        raise DownloadError(why) from error
    headers = {k: v for k, v in build_hf_headers().items() if k.lower() == "authorization"}
    for file in found:
        size = getattr(file, "size", None)
        if size is None:  # a folder
            continue
        large = getattr(file, "lfs", None)
        url = hf_hub_url(repo, file.path, repo_type="dataset")
        yield Remote(file.path, url, size, f"sha256:{large['sha256']}" if large else None, headers)


def _modelscope(repo: str) -> Iterator[Remote]:
    base = f"{MODELSCOPE}/api/v1/datasets/{repo}/repo"
    seen: set[str] = set()
    page = 1
    while True:
        answer = _http.get_json(
            f"{base}/tree?Revision=master&Recursive=True&PageNumber={page}&PageSize={PAGE}"
        )
        if not answer.get("Success", True):
            raise DownloadError(f"modelscope:{repo}: {answer.get('Message') or 'it refused'}")
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
        page += 1


def _zenodo(record: str) -> Iterator[Remote]:
    answer = _http.get_json(f"{ZENODO}/api/records/{record}")
    for file in answer["files"]:
        yield Remote(file["key"], _content(file), file["size"], _known(file.get("checksum")))


def _content(file: dict[str, Any]) -> str:
    links = file["links"]
    return links.get("content") or links["self"]


def _known(checksum: str | None) -> str | None:
    """A checksum if it is of a kind that is compared here."""
    return checksum if checksum and checksum.startswith(("md5:", "sha256:")) else None


def _url(url: str) -> Iterator[Remote]:
    yield Remote(url.rpartition("/")[2], url, _http.get_size(url))
