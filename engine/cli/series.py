"""Several evaluations by one command: epochs of a training, sets of pictures, or both.

Each is an ordinary evaluation into a folder of its own; a small table over them, as CSV and as
Markdown, is read from what they saved. `main.py` calls `run`; nothing here scores or measures.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import torch

from datasets._csv import defused

from ..evaluation import estimates
from ..evaluation.estimates import Estimate, PlainEstimate
from ..phases import eval
from ..plain_data import read_json
from ..reporting.document import Table, render_markdown, to_text
from ..reporting.tables import COUNTS, Line, numbers
from ..runtime.device import Device
from ..runtime.files import write_file
from ..runtime.run_folder import begin, open_output
from ..weights import opening
from . import detector, eval_request, machine, settings

TABLE, PAGE = eval.SERIES
SHOWN = (
    estimates.AP, estimates.AUROC, estimates.ACCURACY, estimates.BALANCED_ACCURACY,
    estimates.LOG_LOSS, estimates.DETECTION_RATE, estimates.ACCURACY_REAL,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One evaluation: of an epoch's weights (None = those of the command) on a set ('' = that of
    the command); `args` is its own command line."""

    epoch: int | None
    name: str
    args: argparse.Namespace

    @property
    def folder(self) -> str:
        """Its folder below the output: `epoch_5`, `coco` or `epoch_5/coco`."""
        epoch = "" if self.epoch is None else f"epoch_{self.epoch}"
        return str(PurePosixPath(epoch, self.name))


def is_asked_for(args: argparse.Namespace) -> bool:
    """Whether a command line asks for several evaluations, or for epochs by their numbers."""
    return args.epochs is not None or len(args.test_csv) > 1


def _parts(args: argparse.Namespace) -> list[list[Part]]:
    """What is to be done, by epochs: the weights of one are loaded once for all sets."""
    return [
        [Part(number, name, own) for name, own in eval_request.each_set(each).items()]
        for number, each in eval_request.each_epoch(args).items()
    ]


def _requests(parts: Sequence[Part], output: Path, device: Device) -> list[eval.EvalRequest]:
    """The evaluations of one epoch's weights, which are loaded once; all sets are listed."""
    loaded, config = opening.load(settings.chosen(parts[0].args), device)
    requests = []
    for part in parts:
        request = eval_request.evaluation(part.args, loaded, config, device)
        machine.check_apart(output, [part.args.data] if part.args.data else [])
        requests.append(replace(request, output=output / part.folder))
    return requests


def _line(part: Part, output: Path) -> Line:
    """What a finished evaluation saved of all its pictures together."""
    pooled = read_json(output / part.folder / "metrics.json")["pooled"]
    values: dict[str, Estimate | float] = {}
    for name, found in pooled["metrics"].items():
        # What is infinite is saved as null.
        value, low, high = (math.nan if number is None else number for number in found)
        kind = PlainEstimate if name in estimates.PLAIN else Estimate
        values[name] = kind(math.inf if found[0] is None else value, low, high)
    names = [part.folder, "" if part.epoch is None else str(part.epoch), part.name]
    return Line(names, values, counts=tuple(pooled[name] for name in COUNTS))


def _as_csv(lines: Sequence[Line]) -> str:
    """The table's numbers as fractions, without intervals."""
    shown = [name for name in SHOWN if any(name in each.values for each in lines)]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["folder", "epoch", "set", *COUNTS, *shown])
    for each in lines:
        values = [each.values.get(name, "") for name in shown]
        plain = [value.value if isinstance(value, Estimate) else value for value in values]
        writer.writerow([*map(defused, each.names), *(each.counts or ()), *plain])
    return stream.getvalue()


def _write(parts: Sequence[Part], output: Path, title: str) -> Table:
    """Writes the table over finished evaluations. Returns it as it is printed."""
    lines = [_line(part, output) for part in parts]
    table = numbers(["folder", "epoch", "set"], lines, SHOWN)
    write_file(output / TABLE, _as_csv(lines))
    numbered = parts[0].epoch is not None
    page = render_markdown("series.j2", title, numbers=table, numbered=numbered)
    write_file(output / PAGE, page)
    return table


def run(args: argparse.Namespace) -> tuple[str, int]:
    """Does all evaluations that a command line asks for.

    Returns:
        The table for standard output, '' in other processes than the main one; and how many
        pictures could not be read.

    Raises:
        ConfigError: --output holds another run; see also `eval_request.evaluation`.
    """
    device, world = eval_request.opened(args)
    output = detector.output(args, args.output)
    groups = _parts(args)
    parts = [part for group in groups for part in group]
    info = {
        "command": sys.argv,
        "tag": args.tag or "",
        "threads": torch.get_num_threads(),
        "parts": [part.folder for part in parts],
    }
    with ExitStack() as stack:

        def open_folder() -> None:
            owned = (eval.SCORES, *eval.RESULTS)
            stack.enter_context(open_output(output, owned, args.resume, args.overwrite))
            begin(output, info, args.resume, ("parts",), TABLE)

        unreadable = 0
        for group in groups:
            requests = _requests(group, output, device)
            if group is groups[0]:  # only now: a slip in what is named leaves no folder behind
                world.run_on_main(open_folder)
            unreadable += sum(eval.run(request, world)[1] for request in requests)
        if not world.main:
            return "", unreadable
        title = f"{len(parts)} evaluations" + (f" ({args.tag})" if args.tag else "")
        return to_text(_write(parts, output, title)), unreadable
