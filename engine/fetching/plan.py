"""What a data set consists of, at its origins or in a person's downloads, sorted into archives.

scripts/fetch_data.py lists and chooses with it; ledger.py and fetch.py take its items. It asks
services for lists and reads those of folders, and never brings or changes a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from datasets._layout import canonical, spelling

from ..config import ConfigError
from . import services
from .archive_names import beside, group, kind_of, safe_parts
from .catalogue import HAND, Family, Origin, SourceEntry, fill
from .download import FetchError, Remote


@dataclass(frozen=True)
class FetchItem:
    """An archive with all its volumes, or a file that is none. `name`: its path at the origin;
    `values`: what the holes of the entry's `match` stand for; `files`: what to download, or
    `local`: what a person downloaded; `missing`: a volume that is not there."""

    entry: SourceEntry
    name: str
    values: Mapping[str, str]
    files: tuple[Remote, ...] = ()
    local: tuple[Path, ...] = ()
    missing: str | None = None

    @property
    def generator(self) -> str:
        """The generator whose pictures the item has, '' where it is of none in particular."""
        # A hole that the match leaves open cannot be filled.
        named = "{" not in self.entry.generator or "generator" in self.values
        return fill(self.entry.generator, self.values) if named else ""

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the pools of real pictures that the item belongs to, () where it says none."""
        return self.entry.sources or tuple(v for k, v in self.values.items() if k == "source")

    @property
    def into(self) -> Path:
        """The folder below the root that the item goes to. Raises FetchError where it leads
        elsewhere: values of the holes come from names at the origin, which is a stranger's."""
        return Path(*safe_parts(fill(self.entry.into, self.values)))

    @property
    def hosts(self) -> set[str]:
        """The hosts that the item's files come from."""
        return {urlsplit(file.url).netloc for file in self.files}

    @property
    def is_archive(self) -> bool:
        """Whether the item is to be unpacked."""
        return kind_of(self.name) is not None

    @property
    def size(self) -> int | None:
        """Bytes of all files, None where one of them is not known."""
        # Part of a sum would look like the whole of it.
        sizes = [file.size for file in self.files] + [p.stat().st_size for p in self.local]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def labels(self) -> list[str]:
        """Names of the files in the ledger, by origin and not by place on disk: an archive that a
        person moved is still known."""
        folder = PurePosixPath(self.name).parent
        names = [file.name for file in self.files] or [str(folder / p.name) for p in self.local]
        return [f"{self.entry.origin}/{name}" for name in names]


@dataclass(frozen=True)
class Choice:
    """Wanted generators and sources of a family, by name in any spelling; None: all."""

    generators: frozenset[str] | None = None
    sources: frozenset[str] | None = None

    def may_want(self, entry: SourceEntry) -> bool:
        """Whether to ask an entry's origin: False only where its names rule it out already."""
        # A generator with a hole is known by the origin's files alone.
        fixed = () if "{" in entry.generator else (entry.generator,)
        return _meet(fixed, self.generators) and _meet(entry.sources, self.sources)

    def wants(self, item: FetchItem) -> bool:
        """Whether an item is wanted. Files of no generator in particular belong to all; so do files
        of no source."""
        named = (item.generator,) if item.generator else ()
        return _meet(named, self.generators) and _meet(item.sources, self.sources)

    def only(self, entry: SourceEntry) -> frozenset[str] | None:
        """The folders to unpack of an archive that has several generators in it; None: all."""
        if entry.only:  # the entry's own choice, which no flag widens
            return frozenset(entry.only)
        return self.generators if entry.inside else None


def _meet(names: Iterable[str], wanted: frozenset[str] | None) -> bool:
    """Whether one of the names is wanted; True where nothing is named, or all is wanted."""
    spelled = {*map(spelling, names)}
    return wanted is None or not spelled or bool(spelled & {*map(spelling, wanted)})


def offered(family: Family, choice: Choice) -> tuple[list[FetchItem], list[str]]:
    """Items that the origins of a family have, as far as `choice` may want them; and a line on each
    origin that cannot be asked, or has nothing of what it should have."""
    items: list[FetchItem] = []
    failures: list[str] = []
    for origin in family.origins:
        entries = [e for e in family.files if e.origin == origin and choice.may_want(e)]
        if not entries:
            continue
        try:
            items += _listed(origin, entries)
        except FetchError as error:  # one origin that is away must not hide the others
            failures.append(str(error))
    return items, failures


def _listed(origin: Origin, entries: Sequence[SourceEntry]) -> list[FetchItem]:
    """The items that an origin has of its entries. Raises FetchError."""
    remote = {file.name: file for file in services.list_files(origin)}
    items = []
    for archive in group(remote):
        if item := _item(entries, archive.name):
            files = tuple(remote[name] for name in archive.volumes)
            items.append(replace(item, files=files, missing=archive.missing))
    if not items:
        wanted = ", ".join(str(entry.match) for entry in entries)
        raise FetchError(f"{origin}: expected {wanted}; found no such file there any more")
    return items


def brought(family: Family, paths: Iterable[Path]) -> list[FetchItem]:
    """Items that a person downloaded: files, of which one volume is enough, or folders with them.
    Raises FetchError for no such path, or nothing of the family there."""
    items: dict[tuple[Path, ...], FetchItem] = {}
    for path in paths:
        if path.is_dir():
            files = _archives(path.rglob("*"))
        elif path.is_file():
            # One volume stands for all that lie beside it.
            files = list(beside(path.absolute()).values())
        else:
            raise FetchError(f"{path}: expected an archive or a folder of them; found no such path")
        own = list(_local(family.files, files))
        if not own:
            wanted = ", ".join(dict.fromkeys(e.match for e in family.files if e.match))
            raise FetchError(f"{path}: expected archives of {family.name} ({wanted}); found none")
        # A file and its folder may both be named; by its files an item counts once.
        items.update({item.local: item for item in own})
    return list(items.values())


def lying_there(family: Family, root: Path) -> list[FetchItem]:
    """Items to be brought by hand that lie in the root, or one folder below, already."""
    entries = [e for e in family.files if e.origin.kind == HAND and e.match]
    if not entries or not root.is_dir():
        return []
    # No deeper: below lie the unpacked pictures, perhaps millions.
    return list(_local(entries, _archives((*root.glob("*"), *root.glob("*/*")))))


def _archives(paths: Iterable[Path]) -> list[Path]:
    """Those of the paths, sorted, that are files named as an archive or a volume of one."""
    return sorted(p for p in paths if kind_of(group([p.name])[0].name) and p.is_file())


def _local(entries: Sequence[SourceEntry], paths: Iterable[Path]) -> Iterator[FetchItem]:
    """The items that files on disk make."""
    # By folder: two archives of one name in two folders are not volumes of one.
    folders: dict[Path, list[str]] = {}
    for path in paths:
        folders.setdefault(path.absolute().parent, []).append(path.name)
    for folder, names in folders.items():
        for archive in group(names):
            if item := _item(entries, (folder / archive.name).as_posix(), whole=False):
                local = tuple(folder / name for name in archive.volumes)
                yield replace(item, local=local, missing=archive.missing)


def _item(entries: Sequence[SourceEntry], name: str, whole: bool = True) -> FetchItem | None:
    """An item of the first entry that the name fits, None where there is none. `whole`: whether
    the name is the whole path at the origin, or only ends as that does."""
    for entry in entries:
        values = entry.values(name, whole)
        if values is not None:
            # As many folders as the match names, so that here and at the origin it is one name.
            depth = 1 + str(entry.match).count("/")
            return FetchItem(entry, "/".join(name.split("/")[-depth:]), values)
    return None


def choose(
    family: Family, items: Sequence[FetchItem], choice: Choice, all_known: bool = True
) -> list[FetchItem]:
    """Those of the items that are wanted.

    Args:
        family: the data set, which names generators that no path names.
        items: what there is of it.
        choice: what is wanted.
        all_known: whether every origin said what it has; else no name is called unknown.

    Raises:
        ConfigError: a generator or source that the family does not have; lists those it has.
    """
    entries = family.files
    generators = {e.generator for e in entries if "{" not in e.generator}
    generators |= {*family.generators, *(item.generator for item in items)} - {""}
    sources = {s for e in entries for s in e.sources} | {s for i in items for s in i.sources}
    for flag, wanted, known in (
        ("generators", choice.generators, generators),
        ("sources", choice.sources, sources),
    ):
        unknown = sorted(name for name in wanted or () if canonical(name, known) is None)
        if unknown and all_known:
            listed = f"some of {', '.join(sorted(known))}" if known else "none, it has no such"
            raise ConfigError(f"--{flag}: expected {listed}; found {unknown[0]!r}")
    return [item for item in items if choice.wants(item)]
