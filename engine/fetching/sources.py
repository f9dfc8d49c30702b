"""What a streamed run scores: sources of pictures, each listed when its turn comes.

The request of phase test --stream and scripts/score_ray.py list through here. A source is a folder,
a table, an archive or some pictures; of no source but an archive is more in memory than the names
of a folder. A table's addresses are heeded for allowed protocols alone, and never lead to this
machine or a private network.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
from datasets import LayoutError, Record, is_picture
from datasets._archives import FORMATS, close_all, files_below
from datasets._kinds import SHARDS, known_kind, tell_left_out
from datasets._paths import ALL, is_split, split_named
from datasets._record import walk_in_order
from datasets.csv_file import path_in, picture_names

from ..config import ConfigError
from . import remote
from .remote import RemotePicture, beside, check_protocol, path_of, protocol_of

STDIN, PICTURE, TABLE, ARCHIVE, FOLDER = "-", "picture", "table", "archive", "folder"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Pictures that are listed together. `kind`: one of STDIN, PICTURE, TABLE, ARCHIVE and FOLDER;
    `name`: what the user named, or a file in it; `names`: of the pictures, where they are named one
    by one; `root`: where a table's paths start from, None = from its folder; `allowed`: protocols
    of the addresses that it may name; `split`: the one that is listed, of a table or archive, None
    = all. All but standard input can be pickled and listed again."""

    kind: str
    name: str
    names: Iterable[str] = ()
    root: Path | None = None
    allowed: frozenset[str] = frozenset()
    split: str | None = None

    @property
    def archive(self) -> bool:
        """Whether it is one file, which is brought and read as a whole."""
        return self.kind == ARCHIVE

    def state(self) -> str:
        """What changes with a table or an archive; '' of all else, and where nothing tells. Raises
        LayoutError, OSError."""
        if self.kind not in (TABLE, ARCHIVE):
            return ""
        return remote.version(self.name) if protocol_of(self.name) else _age(Path(self.name))

    def check_state(self, before: str) -> None:
        """Raises LayoutError when the source was replaced since it was in a state: pictures of two
        versions would stand under the same names."""
        if self.state() != before:
            raise LayoutError(
                f"{self.name}: expected one version of it as long as it is scored; found another "
                "than before: --resume tells whether parts of the earlier one are there"
            )

    @contextmanager
    def opened(self) -> Iterator[Iterator[Record]]:
        """A context with the records, in which the pictures can be read. Raises LayoutError, as
        listing them does."""
        if self.kind == PICTURE:
            yield map(_picture, self.names)
        elif self.kind == STDIN:
            yield _typed(self.names, self.allowed)
        elif self.kind == FOLDER:
            yield _files(self.name)
        elif not protocol_of(self.name):
            path = Path(self.name)
            yield _members(path, self) if self.archive else _rows(path, self)
        else:
            # One request, in place of one for each picture of an archive.
            with TemporaryDirectory(prefix="shard") as folder:
                file = remote.bring(self.name, Path(folder))
                try:
                    yield _members(file, self) if self.archive else _remote_rows(file, self)
                except LayoutError as error:
                    raise LayoutError(_shown(error, file, self.name)) from error
                finally:
                    close_all()


def sources(
    inputs: Sequence[str],
    csv_roots: Sequence[Path] = (),
    allowed: Iterable[str] = (),
    names: Iterable[str] = (),
    split: str | None = None,
) -> Iterator[Source]:
    """The sources that paths, addresses and `-` stand for, in order.

    Pictures named one after the other are one source; a folder of tar or Parquet files is one for
    each of them.

    Args:
        inputs: as --input has them.
        csv_roots: as `datasets.csv_roots` has them; folders alone.
        allowed: protocols of the addresses that tables and `names` may state.
        names: what `-` stands for.
        split: the one that tables and archives are to list, None or ALL = everything.

    Raises:
        ConfigError: a protocol that is none of remote.PROTOCOLS, or whose package is missing; a
            split of what states none.
        LayoutError: a store does not answer; later, a folder without pictures.
    """
    roots = datasets.csv_roots([Path(name) for name in inputs], csv_roots)
    protocols = frozenset(allowed)
    wanted = None if split == ALL else split
    kinds = [_kind(name) for name in inputs]  # at once: a slip is told before anything is loaded
    named = [
        Source(kind, name, names if kind == STDIN else (name,), root, protocols, wanted)
        for kind, name, root in zip(kinds, inputs, roots, strict=True)
    ]
    for source in named if wanted else ():
        if source.kind in (STDIN, PICTURE) or _is_local_tree(source):
            raise _no_splits(source.name)
    return _grouped(named)


def _is_local_tree(source: Source) -> bool:
    """Whether a source is a folder of pictures on this machine."""
    local = source.kind == FOLDER and not protocol_of(source.name)
    return local and datasets.kind_of(Path(source.name)) == "folder"


def _no_splits(name: str) -> ConfigError:
    """The error of a split of pictures that state none."""
    # Which folder of a tree names a split, all its folders together tell; a stream has listed none
    # of them when it scores the first.
    return ConfigError(
        f"--split: expected CSV files or archives as --input with --stream; found {name}: name the "
        "folder of the split itself"
    )


def _grouped(named: Sequence[Source]) -> Iterator[Source]:
    """The sources of inputs: pictures together, the shards of a folder apart."""
    for kind, group in groupby(named, key=lambda source: source.kind):
        if kind == PICTURE:
            pictures = tuple(source.name for source in group)
            yield Source(kind, pictures[0], pictures)
        elif kind == FOLDER:
            for source in group:
                yield from _in_folder(source)
        else:
            yield from group


def _kind(name: str) -> str:
    """One of STDIN, PICTURE, TABLE, ARCHIVE and FOLDER: what an input is."""
    if name == STDIN:
        return STDIN
    if protocol := protocol_of(name):
        check_protocol(protocol, "--input")
        path = path_of(name)
        suffix = Path(path).suffix.lower()
        if suffix == ".csv":
            return TABLE
        if suffix in FORMATS:
            return ARCHIVE
        return PICTURE if is_picture(path) or not remote.is_folder(name) else FOLDER
    path_kind = datasets.kind_of(Path(name))
    if path_kind is None:  # a picture, or nothing, whose row then says so
        return PICTURE
    if path_kind == "csv_file":
        return TABLE
    return FOLDER if Path(name).is_dir() and path_kind in ("folder", *SHARDS) else ARCHIVE


def _picture(name: str, public: bool = False) -> Record:
    """The record of a picture at a path or an address; `public` as RemotePicture has it."""
    if protocol_of(name):
        return Record(name, Path(name), fetch=RemotePicture(name, public))
    return Record(name, Path(name))


def _named(name: str, allowed: Collection[str], where: str) -> Record:
    """The record of an address that a table or a list names. Raises LayoutError for a protocol that
    the user did not allow."""
    protocol = protocol_of(name)
    # It may be of a stranger's making, and the request would be sent from here, with our rights.
    if protocol not in allowed or "::" in name:
        raise LayoutError(
            f"{where}: expected paths, or addresses of protocols that --protocols allows "
            f"({', '.join(sorted(allowed)) or 'none'}); found {name[:200]!r}"
        )
    return _picture(name, public=True)


def _typed(names: Iterable[str], allowed: Collection[str]) -> Iterator[Record]:
    """The records of names that came on standard input."""
    for name in names:
        yield _named(name, allowed, "standard input") if protocol_of(name) else _picture(name)


# --- tables


def _rows(file: Path, table: Source) -> Iterator[Record]:
    """The records of a local table's rows, in their order."""
    folder = table.root or file.parent
    for text in picture_names(file, table.split):
        if protocol_of(text.strip()):
            yield _named(text.strip(), table.allowed, str(file))
        else:
            path = folder / path_in(text, file, folder)
            yield Record(str(path), path)


def _remote_rows(file: Path, table: Source) -> Iterator[Record]:
    """The records of the rows of a table at an address, of which a file is the copy."""
    for text in map(str.strip, picture_names(file, table.split)):
        if protocol_of(text):
            yield _named(text, table.allowed, table.name)
        else:
            yield _picture(beside(table.name, text), public=True)


# --- archives


def _age(path: Path) -> str:
    """Size and time of a local file. Raises LayoutError: it is gone."""
    try:
        status = path.stat()
    except OSError as error:
        raise LayoutError(f"{path}: expected a file; {error.strerror}") from error
    return f"{status.st_size}:{status.st_mtime_ns}"


def _shown(error: Exception, file: Path, name: str) -> str:
    """The text of an error about a file, which is called `name` in it: a copy's own name is another
    one in each run."""
    return str(error).replace(str(file), name)


def _members(path: Path, archive: Source) -> Iterator[Record]:
    """The records of an archive, or of its copy at a path; none where it has nothing of the split,
    for others may. One that cannot be listed costs a row, as a picture that cannot be read does: it
    may be one of thousands."""
    shown, split = archive.name, archive.split
    try:
        contents = datasets.load(known_kind(path)).contents(path)
        if split and split_named(split) not in contents.splits():
            return
        records = contents.records(split, labelled=False)
    except LayoutError as error:
        text = _shown(error, path, shown)
        log.warning("%s", text)
        records = [Record("", path, error=text[:200])]
    for record in records:
        key = f"{shown.rstrip('/')}/{record.key}" if record.key else shown
        yield replace(record, key=key)


# --- folders


def _in_folder(source: Source) -> Iterator[Source]:
    """The sources of a folder at a path or an address: its archives, or itself."""
    if protocol_of(source.name):
        # The first picture tells, as in a local folder.
        if next(remote.walk(source.name), None) is not None:
            if source.split:
                raise _no_splits(source.name)
            yield source
            return
        shards = list(remote.walk(source.name, _is_shard))
    else:
        path = Path(source.name)
        kind = known_kind(path)
        tell_left_out(path, kind)
        if kind == "folder":
            yield source
            return
        shards = [str(file) for file in files_below(path) if datasets.kind_of(file) == kind]
        # In the order of keys, in which a slash follows a shard's name.
        shards.sort(key=lambda shard: f"{Path(shard).as_posix()}/")
    if not shards:
        raise LayoutError(f"{source.name}: expected pictures, or tar or Parquet files; found none")
    if source.split:
        _check_layout(source, shards)
    yield from (Source(ARCHIVE, shard, split=source.split) for shard in shards)


def _check_layout(source: Source, shards: Iterable[str]) -> None:
    """Raises ConfigError where folders of archives name splits, which no archive knows of."""
    for shard in shards:
        folders = shard.removeprefix(source.name).strip("/\\").replace("\\", "/").split("/")[:-1]
        if any(is_split(name) or name == source.split for name in folders):
            raise _no_splits(source.name)


def _is_shard(name: str) -> bool:
    return name.lower().endswith((".tar", ".parquet"))


def _files(name: str) -> Iterator[Record]:
    """The records of the pictures below a folder at a path or an address."""
    if protocol_of(name):
        yield from map(_picture, remote.walk(name))
    else:
        yield from (Record(str(path), path) for path in walk_in_order(Path(name)))
