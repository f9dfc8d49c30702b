"""Streams generated pictures through a detector that gives each the same score: memory and rate.

    python scripts/bench/stream.py 1000000        a million of 1 x 1, in tar shards of 10,000

Prints a JSON object: pictures, seconds, pictures a second, peak memory of this process in MB. The
measure `stream` of `python scripts/bench` compares two numbers of pictures by it. Files go to the
system's temporary folder (TMPDIR), 1.5 kB a picture, and are deleted.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from engine.api import Scorer  # noqa: E402
from engine.config import resolve  # noqa: E402
from engine.fetching.sources import sources  # noqa: E402
from engine.phases.stream import StreamRequest, run  # noqa: E402
from engine.phases.test import TestRequest  # noqa: E402
from engine.runtime.run_folder import peak_memory  # noqa: E402
from engine.runtime.workers import Workers  # noqa: E402
from engine.scoring.backend import Computing, Results  # noqa: E402
from engine.scoring.verdict_rule import VerdictRule  # noqa: E402
from engine.weights.loaded import Loaded  # noqa: E402

SHARD = 10_000  # pictures of a tar file, and of a part
BATCH = 500


@dataclass(frozen=True)
class Constant:
    """A detector that looks at no picture."""

    given = None
    ahead = 0

    def computing(self) -> Computing:
        """As `Backend` has it, like all that follows."""
        return Computing("none", "cpu", "fp32", 1)

    def transform(self, validation: bool) -> Any:  # noqa: ARG002 - there is one
        return _nothing

    def prepare(self) -> None:
        return

    def submit(self, items: Sequence[Any], explain: bool) -> Callable[[], Results]:  # noqa: ARG002
        return lambda: [(0.0, None)] * len(items)


def _nothing(*_: Any) -> int:
    return 0


def write_shards(folder: Path, count: int) -> None:
    """Writes `count` pictures of one pixel into tar files."""
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, "PNG")
    content = stream.getvalue()
    for first in range(0, count, SHARD):
        with tarfile.open(folder / f"{first // SHARD:05}.tar", "w") as archive:
            for number in range(first, min(first + SHARD, count)):
                info = tarfile.TarInfo(f"{number:09}.png")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def measure(count: int, form: str) -> dict[str, float]:
    """What streaming `count` pictures took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shards").mkdir()
        write_shards(folder / "shards", count)
        config = resolve("default", [("batch", {"score": {"batch_size": BATCH}})])
        loaded = Loaded(None, "default", folder, "", 0.5, None)
        scorer = Scorer(Constant(), loaded, config, VerdictRule(0.5, None), Workers(1))
        test = TestRequest([], scorer, output=folder / "out")
        began = time.monotonic()
        run(StreamRequest(test, sources([str(folder / "shards")]), form, SHARD))
        seconds = time.monotonic() - began
    megabytes = round((peak_memory() or 0) * 1024)
    rate = round(count / seconds)
    return {"pictures": count, "seconds": round(seconds, 1), "rate": rate, "MB": megabytes}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of a command line."""
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    p.add_argument("pictures", type=int, metavar="N")
    p.add_argument("--form", choices=("csv", "parquet"), default="csv", help="of the parts")
    args = p.parse_args(arguments)
    print(json.dumps(measure(args.pictures, args.form)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
