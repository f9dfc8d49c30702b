"""Small pictures as files, and databases and tables of them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import pyarrow as pa
from conftest import make_picture
from pyarrow import parquet

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(seed: int = 0, fake: bool = False, size: tuple[int, int] = (8, 8)) -> bytes:
    """The file of a small generated picture."""
    stream = io.BytesIO()
    make_picture(seed, fake, size).save(stream, "PNG")
    return stream.getvalue()


def pngs(names: Sequence[str], size: tuple[int, int] = (8, 8)) -> dict[str, bytes]:
    """Different pictures under these names; those with "fake" in theirs look it."""
    return {name: png(number, "fake" in name, size) for number, name in enumerate(names)}


def write_lmdb(path: Path, files: Mapping[str, bytes], subdir: bool = False) -> Path:
    """An LMDB with these keys and values; with `subdir` a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = lmdb.open(str(path), subdir=subdir, map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for name, content in files.items():
            transaction.put(name.encode("utf-8", "surrogateescape"), content)
    environment.close()
    return path


def write_parquet(
    path: Path,
    images: Sequence[Any],
    rows: int = 2,
    classes: Mapping[str, Sequence[str]] | None = None,
    **columns: Sequence[Any],
) -> Path:
    """A Parquet file whose column image holds `images`, (path, content) each or contents alone,
    `rows` in a row group; `classes` names what the numbers of a column stand for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if images and isinstance(images[0], tuple):
        found = pa.array([{"bytes": content, "path": name} for name, content in images], IMAGE)
    else:
        found = pa.array(images, pa.binary())
    table = pa.table({"image": found, **columns})
    if classes:
        features = {name: {"names": list(names)} for name, names in classes.items()}
        said = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": said})
    parquet.write_table(table, path, row_group_size=rows)
    return path
