"""Lists of pictures as Fake2M and MPBench have them: a path, a space and a label on each line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ._layout import FAKE, REAL, is_file, is_folder, subfolders
from ._paths import relative
from ._record import LayoutError, Record

SYNTHETIC = "0"
LABELS = {SYNTHETIC: FAKE, "1": REAL}
SAMPLE, FOLDERS = 64, 1024
Row = tuple[int, str, str]


def _rows(file: Path) -> Iterator[Row]:
    """Line number, path and label of each line: the last space is what parts them.

    Raises:
        LayoutError: the file is not UTF-8 text, or a line has no label.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                path, _, label = line.rstrip().rpartition(" ")
                if label in LABELS and path:
                    yield number, path, label
                elif line.strip():
                    raise LayoutError(
                        f"{file}, line {number}: expected `path label`, label 0 (synthetic) or 1; "
                        f"found {line.strip()[:200]!r}"
                    )
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"{file}: expected a list in UTF-8; found {error}") from error


def _spread(rows: Iterable[Row], count: int) -> list[Row]:
    """Between `count` and twice as many rows, or all, at even distances."""
    kept: list[Row] = []
    step = 1
    for place, row in enumerate(rows):
        if place % step == 0:
            kept.append(row)
            if len(kept) == 2 * count:
                kept, step = kept[::2], step * 2
    return kept


def _sample(rows: Iterable[Row]) -> list[Row]:
    """Rows from all over a list and from its folders: a copy may have any part of its pictures."""
    folders: dict[str, Row] = {}

    def seen() -> Iterator[Row]:
        for row in rows:
            folders.setdefault(row[1].replace("\\", "/").rpartition("/")[0], row)
            yield row

    spread = _spread(seen(), SAMPLE)
    return [*spread, *_spread(folders.values(), FOLDERS)]


def _start(file: Path, sample: Sequence[Row], root: Path, base: str) -> str | None:
    """The folder below `root` from which the paths of a list start, with a slash behind.

    Copies differ in it, so that it is where most of the sample is found, or else where its folders
    are. None where neither is: those pictures are not there.
    """
    sets = [folder.name for folder in subfolders(root / base)]
    sets.sort(key=lambda name: name != file.stem)
    starts = ["", "ImageData/", base, *(f"{base}{name}/" for name in sets)]
    paths = [relative(path, file) for _, path, _ in sample]

    def files(start: str) -> int:
        return sum(is_file(root / (start + p)) for p in paths if (start + p).startswith(base))

    def folders(start: str) -> int:
        own = start == f"{base}{file.stem}/"  # of a list of names alone, its own name tells the set
        there = [start + p for p in paths if (start + p).startswith(base) and ("/" in p or own)]
        return sum(is_folder((root / p).parent) for p in there)

    for count in (files, folders):
        best = max(starts, key=count)
        if count(best):
            return best
    return None


def generator_of(folder: str) -> str:
    """The sub set, or the set where it has none, of a folder ImageData/<split>/<set>/<sub set>/…"""
    return (folder.split("/")[3:4] or folder.split("/")[2:3])[0]


def _listed(file: Path, rows: Iterable[Row], start: str, root: Path, base: str) -> list[Record]:
    """The records of a list, whether or not their pictures are on disk.

    Raises:
        LayoutError: a path that leads out of `base`, or to no set in it.
    """
    # Folders are few and pictures a million: what only the folder decides is found once.
    known: dict[str, tuple[str, Path, str]] = {}
    found: list[Record] = []
    for number, path, label in rows:
        folder, _, name = path.replace("\\", "/").rpartition("/")
        if folder not in known:
            below = (start + relative(path, file)).rpartition("/")[0]
            if not below.startswith(base):
                raise LayoutError(
                    f"{file}, line {number}: expected a picture below {base}<set>/; found {path!r}"
                )
            known[folder] = f"{below}/", root / below, generator_of(below)
        prefix, place, generator = known[folder]
        if name in ("", ".", ".."):
            raise LayoutError(f"{file}, line {number}: expected a picture's path; found {path!r}")
        maker = generator if label == SYNTHETIC else ""
        found.append(Record(prefix + name, place / name, LABELS[label], "", maker))
    return found


def read(file: Path, root: Path, base: str) -> list[Record] | None:
    """The pictures that a list names, with their keys from `root`; None when they are not there.

    Args:
        base: the folder below `root` that they must lie in, with a slash behind.

    Raises:
        LayoutError: a line that is wrong, or a path that leads out of `base`.
    """
    start = _start(file, _sample(_rows(file)), root, base)
    return None if start is None else _listed(file, _rows(file), start, root, base)
