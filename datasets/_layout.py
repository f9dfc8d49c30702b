"""What the benchmark families share: finding folders, labels, reals that live elsewhere, errors.

A family is a module with LAYOUT (what it expects, in words), SPLITS and LOCATIONS (what may live
elsewhere), and `records(root, split, locations, sources)`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

from . import open_path
from ._paths import listed
from ._record import Label, LayoutError, Record, is_picture, walk_folders
from .folder import FAKE_NAMES, REAL_NAMES

REAL, FAKE = Label.REAL, Label.FAKE
log = logging.getLogger(__name__)


def is_folder(path: Path) -> bool:
    """Whether it is a folder; of a name too long for one, which pathlib raises for, it is not."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """The same of a file."""
    return os.path.isfile(path)  # noqa: PTH113


def unexpected(folder: Path, layout: str, found: str = "") -> LayoutError:
    """The error of a folder that is not laid out as `layout` says; `found` is by default what the
    folder holds."""
    return LayoutError(f"{folder}: expected {layout}; found {found or listed(folder)}")


def begin(
    root: Path,
    layout: str,
    split: str | None,
    splits: Sequence[str],
    locations: Mapping[str, str] | None,
    known: Sequence[str],
) -> tuple[Path, dict[str, str]]:
    """The root and the locations that were named, once they are such as the family knows.

    Raises:
        LayoutError: no such folder, split or location.
    """
    root = Path(root)
    if not is_folder(root):
        raise unexpected(root, layout)
    if split is not None and split not in splits:
        choices = f"one of the splits {', '.join(splits)}" if splits else "no split: there are none"
        raise LayoutError(f"{root}: expected {choices}; found {split!r}")
    given = {name: path for name, path in (locations or {}).items() if path}
    if unknown := sorted(given.keys() - set(known)):
        choices = " or ".join(f"data.{name}" for name in known) or "no such place: all is below it"
        raise LayoutError(f"{root}: expected {choices}; found data.{unknown[0]}")
    return root, given


def check_sources(wanted: Sequence[str], known: Iterable[str]) -> None:
    """Raises LayoutError, listing the choices, for a source that the data do not have."""
    choices = sorted(known)
    if missing := sorted(set(wanted) - set(choices)):
        available = ", ".join(choices) or "none"
        raise LayoutError(f"--sources: no {', '.join(missing)}; found {available}")


def spelling(name: str) -> str:
    """What spellings of a name have in common: neither case nor - _ . and space matter."""
    return re.sub(r"[-_. ]+", "", name).casefold()


def canonical(name: str, known: Iterable[str]) -> str | None:
    """The known name of which `name` is a spelling."""
    return next((other for other in known if spelling(other) == spelling(name)), None)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies directly in a folder, sorted, without what is hidden."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise LayoutError(f"{folder}: expected a readable folder; {error.strerror}") from error
    return sorted(shown, key=attrgetter("name"))


def files(folder: Path, suffix: str) -> list[Path]:
    """The files directly in `folder` whose names end so, in any case, sorted; not the hidden ones.

    Raises:
        LayoutError: it cannot be read.
    """
    matching = [e for e in _entries(folder) if e.name.lower().endswith(suffix) and e.is_file()]
    return [folder / entry.name for entry in matching]


def _is_link(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to a folder."""
    return entry.is_symlink() and is_folder(Path(entry.path))


def subfolders(folder: Path, known: Collection[str] = ()) -> list[Path]:
    """The folders directly in `folder`, sorted, without hidden ones and links.

    Args:
        known: names of the layout, in any spelling, at which links are followed: where the user put
            one, that is where the data are.

    Raises:
        LayoutError: it cannot be read.
    """
    return [
        folder / e.name
        for e in _entries(folder)
        if e.is_dir(follow_symlinks=False) or (_is_link(e) and canonical(e.name, known))
    ]


def groups(folder: Path, known: Collection[str] = ()) -> list[Path]:
    """`subfolders`, with a warning of links and pictures among them, which are left out."""
    loose = 0
    for entry in _entries(folder):
        if _is_link(entry) and not canonical(entry.name, known):
            log.warning("%s: a link to a folder, left out: name its target", entry.path)
        elif is_picture(entry.name) and is_file(Path(entry.path)):
            loose += 1
    if loose:
        log.warning("%s: %d pictures beside the folders, left out", folder, loose)
    return subfolders(folder, known)


def matches(folder: Path, pattern: str, exclude: Sequence[Path] = ()) -> Iterator[Path]:
    """The folders whose paths below `folder` fit, in order, links among them: names in any case,
    `*` for any letters."""
    first, _, rest = pattern.casefold().partition("/")
    for entry in _entries(folder):
        path = folder / entry.name
        if fnmatchcase(entry.name.casefold(), first) and is_folder(path) and path not in exclude:
            yield from matches(path, rest, exclude) if rest else (path,)


def find(folder: Path, pattern: str, exclude: Sequence[Path] = ()) -> Path | None:
    """The first of `matches` that holds something, or else the first."""
    folders = list(matches(folder, pattern, exclude))
    return next((path for path in folders if _entries(path)), folders[0] if folders else None)


def once(folders: Iterable[tuple[str, Path]], root: Path) -> dict[str, Path]:
    """Folders by name. Raises LayoutError where two have one name, as in two spellings."""
    by_name: dict[str, Path] = {}
    for name, folder in folders:
        if name in by_name:
            raise LayoutError(f"{root}: expected {name} once; found {by_name[name]} and {folder}")
        by_name[name] = folder
    return by_name


def check_both(records: Sequence[Record], folder: Path, others: Iterable[str]) -> None:
    """Raises LayoutError where a folder has pictures of one class alone, which would be measured
    against those of other folders; `others`: the sources that --sources could be given instead."""
    there = {record.label for record in records}
    if len(there) == 1:
        what = "real" if FAKE in there else "synthetic"
        instead = ",".join(others)
        way = f"; or leave it out by --sources {instead}" if instead else ""
        raise LayoutError(
            f"{folder}: expected real and synthetic pictures; found no {what} ones in "
            f"{listed(folder)}{way}"
        )


def pictures(
    folder: Path,
    base: Path,
    label: Label,
    source: str = "",
    generator: str = "",
    prefix: str = "",
) -> list[Record]:
    """Records of all pictures below a folder, with a warning where there are none.

    Args:
        folder: where they lie.
        base: the folder that their keys are paths from.
        label, source, generator: of all of them.
        prefix: of their keys.
    """
    records: list[Record] = []
    for parent, names in walk_folders(folder):
        start = prefix + key_of(parent, base)
        records += [Record(start + name, parent / name, label, source, generator) for name in names]
    if not records:
        log.warning("%s: no pictures; found %s", folder, listed(folder))
    return records


def key_of(folder: Path, base: Path) -> str:
    """The path of `folder` from `base` with a slash behind, '' for `base` itself."""
    below = folder.relative_to(base).as_posix()
    return "" if below == "." else f"{below}/"


def labelled(
    folder: Path, base: Path, layout: str, source: str = "", generator: str = ""
) -> list[Record]:
    """All pictures below `folder`, each below a folder that says real or fake (0_real, nature, …).

    Raises:
        LayoutError: a picture below neither.
    """
    records: list[Record] = []
    for parent, names in walk_folders(folder):
        words = [part.lower() for part in parent.relative_to(folder).parts]
        class_word = next((word for word in words if word in REAL_NAMES | FAKE_NAMES), None)
        start = key_of(parent, base)
        if class_word is None:
            raise unexpected(base, layout, f"{start + names[0]!r} below neither class")
        label, maker = (REAL, "") if class_word in REAL_NAMES else (FAKE, generator)
        records += [Record(start + name, parent / name, label, source, maker) for name in names]
    if not records:
        log.warning("%s: no pictures; found %s", folder, listed(folder))
    return records


def elsewhere(
    name: str, path: str | Path, source: str = "", inner: Sequence[str] = ()
) -> list[Record]:
    """Real pictures that live elsewhere: of a folder, or of an archive or CSV.

    Args:
        name: the location's; keys are `<name>/<path within>`.
        inner: folders within; of the first that is there, only its pictures are taken.

    Raises:
        LayoutError: no pictures, or some that are labelled synthetic.
    """
    root = Path(path)
    if root.is_dir():
        root = next((root / folder for folder in inner if (root / folder).is_dir()), root)
    try:
        records = open_path(root, labelled=False)
    except LayoutError as error:
        raise LayoutError(f"real pictures of {name}: {error}") from error
    for folder in () if root.is_dir() else inner:
        if chosen := [r for r in records if f"/{folder}/" in f"/{r.key}"]:
            records = chosen
            break
    if fake := next((r for r in records if r.label == FAKE), None):
        raise LayoutError(
            f"real pictures of {name}: {root}: expected no synthetic ones; "
            f"found {fake.key!r}, which its folder or class says is one"
        )
    return [Record(f"{name}/{r.key}", r.path, REAL, source, "", r.member) for r in records]


def in_order(
    records: Iterable[Record], root: Path, layout: str, needed: Sequence[Label] = (REAL, FAKE)
) -> list[Record]:
    """The records sorted by key, when there are some of each needed class and no key twice.

    Raises:
        LayoutError: otherwise.
    """
    ordered = sorted(records, key=attrgetter("key"))
    if not ordered:
        raise unexpected(root, layout)
    there = {record.label for record in ordered}
    for label in needed:
        if label not in there:
            what = "synthetic" if label == FAKE else "real"
            raise unexpected(root, layout, f"no {what} pictures in {listed(root)}")
    if twice := next((a.key for a, b in pairwise(ordered) if a.key == b.key), None):
        raise unexpected(root, layout, f"{twice!r} twice")
    return ordered
