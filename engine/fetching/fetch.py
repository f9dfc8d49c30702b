"""Items of a data set on this machine: downloads them, checks and unpacks them.

scripts/fetch_data.py calls `bring` for each item, under the lock of the root. What a person
downloaded stays where it is; what was downloaded here goes when it is unpacked.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets._layout import spelling

from ..runtime.files import replacing
from ..runtime.progress import Progress
from ..runtime.text import size_text
from .archive_names import ARCHIVES
from .archives import extract
from .catalogue import HAND, Family, SourceEntry, fill
from .download import FetchError, Remote, digest, download
from .ledger import CHANGED, Ledger, space, stored_at
from .plan import Choice, FetchItem
from .unpacked import Layout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """`keep`: archives that were downloaded stay. `max_size`: bytes that an archive may unpack
    to."""

    keep: bool = False
    max_size: int | None = None


def check_space(items: Sequence[FetchItem], ledger: Ledger, keep: bool) -> None:
    """Raises FetchError when the items, and what they unpack to, do not fit on the root's disk."""
    need, free = space(items, ledger, keep)
    if need > free:
        raise FetchError(
            f"{ledger.root}: expected {size_text(need)} free, for archives and what they unpack "
            f"to; found {size_text(free)}: free some, name some --generators, or another --root"
        )


def bring(item: FetchItem, root: Path, ledger: Ledger, choice: Choice, options: Options) -> Path:
    """Folder of an item that is downloaded and unpacked, on from where that stopped before.

    Args:
        item: what to bring; what a person downloaded of it stays where it is.
        root: of the data set.
        ledger: of the root, which gets a note on the item.
        choice: the generators that are wanted of it.
        options: how much, and what stays.

    Raises:
        FetchError, OSError: what is complete so far stays.
    """
    folder, only = root / item.into, choice.only(item.entry)
    if item.missing:
        raise FetchError(f"{item.name}: expected all of its parts; {item.missing} is missing")
    state = ledger.state(item, only)
    files = [_get(root, item, file) for file in item.files] or [(path, None) for path in item.local]
    paths = [path for path, _ in files]
    facts = [(path.stat().st_size, checksum) for path, checksum in files]
    if item.is_archive:
        if state == CHANGED:  # no other generator's files stay those of the old version
            only = ledger.unpacked(item, only)
        ledger.begin(item, facts, state)
        _unpack(item, paths, folder, only, options, state == CHANGED)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / Path(item.name).name) as temporary:
            shutil.copyfile(paths[0], temporary)
    ledger.add(item, facts, only)
    if not options.keep:
        _delete([p for p in paths if p.is_relative_to(root / ARCHIVES)], root / ARCHIVES)
    return folder


def _get(root: Path, item: FetchItem, file: Remote) -> tuple[Path, str | None]:
    """A file, downloaded if need be, and its checksum."""
    with Progress(file.size or 0, f"fetch {file.name}", unit="B") as bar:
        if cached := _in_cache(item, file):
            checksum = digest(cached, file)
            if file.checksum in (None, checksum):
                bar.advance(cached.stat().st_size)
                return cached, checksum
        path = stored_at(root, item, file)
        return path, download(file, path, bar.advance)


def _in_cache(item: FetchItem, file: Remote) -> Path | None:
    """A file of the hub that some program downloaded before, by whatever HF_HOME says."""
    if item.entry.origin.kind != "hub":
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(item.entry.origin.where, file.name, repo_type="dataset")
    path = Path(cached) if isinstance(cached, str) else None
    return path if path and path.is_file() and path.stat().st_size == file.size else None


def _unpack(
    item: FetchItem, paths: Sequence[Path], folder: Path, only: frozenset[str] | None,
    options: Options, overwrite: bool,
) -> None:  # fmt: skip
    strip = item.entry.strip
    folders = None if strip is None else frozenset(fill(text, item.values) for text in strip)
    size = sum(path.stat().st_size for path in paths)
    with Progress(size, f"unpack {item.name}", unit="B") as bar:
        files = extract(
            paths, folder, Layout(folders, only),
            inner=item.entry.holds, max_size=options.max_size, overwrite=overwrite,
            advance=bar.advance,
        )  # fmt: skip
    log.info("%s: %d files, %d were there already", item.name, files.written, files.present)


def _delete(paths: Sequence[Path], top: Path) -> None:
    """Deletes files and the folders below `top` that are empty then, `top` too."""
    for path in paths:
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if not folder.is_relative_to(top) or any(os.scandir(folder)):
                break
            folder.rmdir()


def by_hand(family: Family, root: Path, ledger: Ledger, choice: Choice) -> list[str]:
    """Lines on what a person must still download."""
    entries = [e for e in family.files if e.origin.kind == HAND and choice.may_want(e)]
    lines = []
    for text in dict.fromkeys(entry.origin.where for entry in entries):
        same = [entry for entry in entries if entry.origin.where == text]
        if same[0].match is None:
            folder = root / same[0].into
            if not folder.is_dir() or not any(os.scandir(folder)):
                lines.append(f"by hand: get {text}, and put it into {folder}")
        elif not _unpacked(family, same, ledger, choice):
            lines.append(
                f"by hand: get {text}, put it into {root} and run this again, or name it by "
                "--extract PATH"
            )
    return lines


def _unpacked(
    family: Family, entries: Sequence[SourceEntry], ledger: Ledger, choice: Choice
) -> bool:
    """Whether what a person brings for some entries was, for each generator that is named."""
    names = ledger.names(f"{entries[0].origin}/")
    matches = [values for e in entries for name in names if (values := e.values(name)) is not None]
    have = {spelling(values.get("generator", "")) for values in matches}
    wanted = {*map(spelling, choice.generators or ())} & {*map(spelling, family.generators)}
    return bool(matches) and wanted <= have
