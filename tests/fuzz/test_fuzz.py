"""Hostile files made of small good ones: every reader answers with a value or with its own error.

The quick run gives each reader half a second; `-m slow` a minute each with other seeds. A reader
fails here when it raises anything but its own error, when that says nothing, when it writes outside
its folder, or when one file takes longer than LIMIT_SECONDS.
"""

from __future__ import annotations

import io
import json
import signal
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from archive_makers import make_tar, make_zip, pictures
from conftest import ROOT, make_picture
from mutations import mutated
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import datasets
from datasets import LayoutError, Record
from datasets._images import PictureDataset
from datasets._limits import Limits
from datasets.csv_file import read_rows
from detectors._errors import WeightsError
from engine import config
from engine.config import ConfigError
from engine.credentials.fields import fields
from engine.credentials.statements import statements
from engine.evaluation.comparison import read_run
from engine.fetching.archives import extract
from engine.fetching.download import FetchError
from engine.runtime.text import LONGEST, one_line
from engine.runtime.workers import Workers, in_turn
from engine.weights.cards import Card
from engine.weights.files import read_weights, save_weights
from engine.weights.loaded import card_of

QUICK_SECONDS, LONG_SECONDS, LIMIT_SECONDS = 0.4, 60.0, 20.0
FEWEST = 25  # files that each reader gets, also where the machine is slow


class TooSlow(Exception):
    """One file took longer than LIMIT_SECONDS."""


@dataclass(frozen=True)
class Reader:
    """A public function that reads files of strangers. `seeds`: good files; `tokens`: words of the
    format; `read`: takes the path of a file; `errors`: what it may raise; `suffix`: of its files.
    """

    seeds: Callable[[Path], Sequence[bytes]]
    tokens: Sequence[bytes]
    read: Callable[[Path], Any]
    errors: type[Exception] | tuple[type[Exception], ...]
    suffix: str


def csv_seeds(_: Path) -> list[bytes]:
    return [
        b"image,class,split\na.png,0,train\nb/c.jpg,1,val\n",
        b'\xef\xbb\xbfimage,class,generator,source\n"a, b.png",1,sd14,\n" x ",0,,coco\n',
        b"image;class\na.png;0\n",
        b"image\tclass\na.png\t0\n",
    ]


def yaml_seeds(_: Path) -> list[bytes]:
    return [
        b"train:\n  epochs: 3\n  lr: 1.0e-4\n  betas: [0.9, 0.999]\nscore: {batch_size: 4}\n",
        b"a: &a [x, y]\nb: [*a, *a]\nc: {d: *a}\n",
        b"--- !!map\nkey: !!float 1e400\nother: 0x7fffffffffffffff\ndate: 2024-02-30\n",
    ]


def run_seeds(_: Path) -> list[bytes]:
    info = {"threshold": 0.5, "config": {"detector": "default"}, "degradations": ["none"]}
    return [json.dumps(info).encode(), b"[" * 200 + b"]" * 200, b'{"threshold": NaN}']


def read_run_json(path: Path) -> Any:
    """A run whose run.json is the hostile file."""
    folder = path.parent / "run"
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_bytes(path.read_bytes())
    (folder / "scores.csv").write_text("key,source,generator,label,logit,score,error\n")
    return read_run(folder)


def safetensors_seeds(folder: Path) -> list[bytes]:
    state = {"fc.weight": torch.zeros(1, 8), "fc.bias": torch.zeros(1)}
    save_weights(folder / "seed.safetensors", state, Card("default", {"views": 1}))
    return [(folder / "seed.safetensors").read_bytes()]


def torch_seeds(folder: Path) -> list[bytes]:
    state = {"fc.weight": torch.zeros(1, 8), "fc.bias": torch.zeros(1)}
    torch.save(state, folder / "new.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    return [(folder / name).read_bytes() for name in ("new.pth", "old.pth")]


def onnx_seeds(_: Path) -> list[bytes]:
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("batch", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([helper.make_node("Relu", ["batch"], ["logits"])], "g", [x], [y])
    model = helper.make_model(graph)
    helper.set_model_props(model, {"card": '{"format": "x", "detector": "default"}'})
    return [model.SerializeToString()]


def zip_seeds(folder: Path) -> list[bytes]:
    files = pictures(3, size=200)
    made = [make_zip(folder / f"{n}.zip", files, n) for n in (zipfile.ZIP_STORED, 8)]
    return [path.read_bytes() for path in made]


def tar_seeds(folder: Path) -> list[bytes]:
    made = [make_tar(folder / f"x{end}", pictures(3, size=200)) for end in (".tar", ".tar.gz")]
    return [path.read_bytes() for path in made]


def metadata_seeds(_: Path) -> list[bytes]:
    """Pictures that say where they come from: EXIF, XMP, texts, packed and not."""
    exif, info = Image.Exif(), PngInfo()
    packet = b'<x xmlns:t="http://ns.adobe.com/xap/1.0/" t:CreatorTool="b"/>'
    exif[271] = 'workflow:{"nodes": []}'
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "Steps: 20, Sampler: a".encode("utf-16-be")
    info.add_text("parameters", "Steps: 20, Sampler: a", zip=True)
    info.add_text("prompt", '{"1": {"class_type": "a", "inputs": {"ckpt_name": "b"}}}')
    info.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=True)
    blocks = {"exif": exif, "xmp": packet}
    options: dict[str, dict[str, Any]] = {"PNG": {"pnginfo": info}, "JPEG": blocks, "WEBP": blocks}
    seeds = []
    for kind, more in options.items():
        stream = io.BytesIO()
        make_picture(1, fake=True, size=(8, 8)).save(stream, kind, **more)
        seeds.append(stream.getvalue())
    return seeds


def say(path: Path) -> None:
    """What the file says of itself, on lines that a terminal may have."""
    rows, problems = fields(path.read_bytes())
    assert all(statement.text.isprintable() for statement in statements(rows))
    assert all(len(problem) < 2 * LONGEST for problem in problems)


def unpack(path: Path) -> Any:
    return extract([path], path.parent / "unpacked", max_size=1 << 20, overwrite=True)


def in_place(path: Path) -> list[Record]:
    return datasets.open_path(path, labelled=False)


READERS = {
    "csv": Reader(csv_seeds, [b'"', b",", b"\n", b"\r", b";", b"\0", b"image"], read_rows,
                  LayoutError, ".csv"),
    "yaml": Reader(yaml_seeds, [b"&a", b"*a", b"[" * 99, b"{", b": ", b"!!python/name:os", b"\n- "],
                   config.read_yaml, ConfigError, ".yaml"),
    "run.json": Reader(run_seeds, [b"[", b"{", b"NaN", b"1e999", b'"', b"null"], read_run_json,
                       ConfigError, ".json"),
    "safetensors": Reader(safetensors_seeds, [b'"shape":', b"[", b"-1", b"9" * 30],
                          lambda path: read_weights(path), WeightsError, ".safetensors"),
    "torch": Reader(torch_seeds, [b"PK\3\4", b"c__builtin__\neval\n", b"R", b"\x8c\xff"],
                    lambda path: read_weights(path), WeightsError, ".pth"),
    "onnx metadata": Reader(onnx_seeds, [b"card", b"{", b"\x72", b"\x0a"], card_of, WeightsError,
                            ".onnx"),
    "zip unpacked": Reader(zip_seeds, [b"PK\1\2", b"PK\3\4", b"../", b"/etc/x"], unpack,
                           FetchError, ".zip"),
    "tar unpacked": Reader(tar_seeds, [b"ustar", b"../", b"2", b"1"], unpack, FetchError, ".tar"),
    "zip in place": Reader(zip_seeds, [b"PK\1\2", b"PK\3\4", b"../"], in_place, LayoutError,
                           ".zip"),
    "metadata": Reader(metadata_seeds, [b"Exif\0\0", b"MM\0*", b"zTXt", b"<!DOCTYPE x>"],
                       say, (), ".img"),
    "tar in place": Reader(tar_seeds, [b"ustar", b"../", b"2"], in_place, LayoutError, ".tar"),
}  # fmt: skip


@contextmanager
def deadline() -> Iterator[None]:
    """Raises TooSlow in its context after LIMIT_SECONDS."""

    def ring(_: int, __: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attack(reader: Reader, folder: Path, seconds: float, seed: int) -> None:
    """Reads mutated files, FEWEST or more, until the time is over. Fails with the file kept."""
    path = folder / f"hostile{reader.suffix}"
    outside = set(folder.parent.iterdir())
    end = time.monotonic() + seconds
    for count, content in enumerate(mutated(reader.seeds(folder), reader.tokens, seed)):
        path.write_bytes(content)
        try:
            with deadline():
                reader.read(path)
        except reader.errors as error:
            said = one_line(str(error))
            assert said.isprintable() and 0 < len(said) <= LONGEST + 3, f"{path}: {said[:200]!r}"
        except Exception as error:
            kept = folder / f"fault{reader.suffix}"
            kept.write_bytes(content)
            pytest.fail(f"file {count} of seed {seed}, kept as {kept}: {error!r}")
        if count >= FEWEST and time.monotonic() > end:
            break
    assert set(folder.parent.iterdir()) == outside, "something was written outside"


def picture_seeds() -> list[bytes]:
    """A small picture in each format that Pillow writes, and a HEIC."""
    seeds = [(ROOT / "tests" / "pictures" / "two_colours.heic").read_bytes()]
    picture = make_picture(1, fake=True, size=(40, 24))
    for kind in ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "TGA"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        seeds.append(buffer.getvalue())
    return seeds


def size_of(image: Image.Image, _: np.random.Generator) -> tuple[int, int]:
    return image.size


def attack_decoders(folder: Path, seed: int, count: int) -> None:
    """Decodes mutated pictures in a worker process with limits: each has pixels or an error."""
    tokens = [b"IHDR", b"\xff\xd8", b"Exif\0\0", b"MM\0*", b"ftypavif", b"\xff\xff\xff\xff"]
    records = []
    for number, content in enumerate(mutated(picture_seeds(), tokens, seed, count)):
        path = folder / f"{number:05}.img"
        path.write_bytes(content)
        records.append(Record(path.name, path))
    limits = Limits(megapixels=4, memory=0.5, seconds=5)
    found = in_turn(PictureDataset(records, size_of, limits=limits), 16, Workers(1, limits))
    items = [item for batch in found for item in batch]
    assert [item.index for item in items] == list(range(count))
    for item in items:
        assert bool(item.error) != (item.value is not None), item
        assert item.error.isprintable() and len(item.error) <= 300, item
    assert any(item.value for item in items) and any(item.error for item in items)


def test_decoders_answer_hostile_pictures(tmp_path: Path) -> None:
    attack_decoders(tmp_path, seed=1, count=600)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_decoders_answer_hostile_pictures_for_long(seed: int, tmp_path: Path) -> None:
    attack_decoders(tmp_path, seed, count=20_000)


@pytest.mark.parametrize("name", READERS)
def test_readers_answer_hostile_files(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    attack(READERS[name], folder, QUICK_SECONDS, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("name", READERS)
def test_readers_answer_hostile_files_for_long(name: str, seed: int, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    attack(READERS[name], folder, LONG_SECONDS, seed)
