"""The files of a training run, besides checkpoints: weights, history, curves, bad files.

The training loop writes them in the main process, after every epoch; phase train asks here which
names a run owns. Each is written whole, and a resumed run writes the same again.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets._csv import defused
from detectors._base import Detector
from detectors._options import describe_options

from ..config import DETECTION, Config, TrainOptions
from ..evaluation import estimates
from ..reporting.training_curves import VAL_LOSS, draw_curves
from ..runtime.files import write_file
from ..runtime.run_folder import RUN
from ..scoring.trained_on import TRAINED_ON
from ..weights.cards import Card
from ..weights.files import save_original, save_weights
from ..weights.manifest import BEST, PUBLISHED_BEST
from .checkpoint import own_state

CHECKPOINT, HISTORY, BAD_FILES = "last.pt", "history.csv", "bad_files.csv"
FINAL, EPOCH = "final.safetensors", "epoch_{}.safetensors"
# Names of the same weights in the layout of the published program, CO-SPY's own.
PUBLISHED = {BEST: PUBLISHED_BEST, FINAL: "final_model.pth"}
VALIDATED = (estimates.AP, estimates.AUROC, estimates.ACCURACY, estimates.BALANCED_ACCURACY)
LOG, BOARD, CURVES, REPORT = "training.log", "tensorboard", "curves.png", "validation"
OUTPUTS = (
    *(CHECKPOINT, CHECKPOINT + ".part", CHECKPOINT + ".previous"),
    *(BEST, FINAL, *PUBLISHED.values()),
    *(HISTORY, BAD_FILES, CURVES, LOG, RUN, BOARD, REPORT, TRAINED_ON),
)
Row = Mapping[str, float]
log = logging.getLogger(__name__)


def goodness(row: Row, select: str) -> float:
    """The number that is largest in the best row of a history."""
    return -row.get(VAL_LOSS, row["loss"]) if select == "loss" else row[select]


def best_row(history: Sequence[dict[str, float]], options: TrainOptions) -> dict[str, float]:
    """The row of a history whose weights are kept; of equal ones the one that `ties` names."""
    sign = 1 if options.ties == "later" else -1
    return max(history, key=lambda row: (goodness(row, options.select), sign * row["epoch"]))


def shown(values: Row) -> str:
    """Results of a validation, for people: losses as they are, the rest in percent."""
    return ", ".join(
        f"{k} {v:.4f}" if k.endswith(VAL_LOSS) else f"{k} {100 * v:.2f}" for k, v in values.items()
    )


def written(output: Path) -> list[str]:
    """Names of the files that a run writes into a folder, also of those of its epochs, whole or
    begun, that are there."""
    numbered = re.compile(r"\.?(epoch_[0-9]+\.(safetensors|pth))(\.[0-9]+\.part)?")
    matches = [numbered.fullmatch(path.name) for path in output.glob("*epoch_*")]
    return [*OUTPUTS, *sorted({match[1] for match in matches if match})]


def _csv(header: list[str], rows: Sequence[Sequence[Any]]) -> str:
    """The text of a CSV file, which no spreadsheet will compute."""
    buffer = io.StringIO(newline="")
    cells = ([defused(v) if isinstance(v, str) else v for v in row] for row in rows)
    csv.writer(buffer).writerows([header, *cells])
    return buffer.getvalue()


def write_history(output: Path, history: Sequence[dict[str, float]], best: Row, title: str) -> None:
    """Writes the history as a table and, where matplotlib is installed, as curves.

    Args:
        output: folder of the run.
        history: a row per epoch.
        best: the row that the curves mark.
        title: of the detector.
    """
    write_file(output / HISTORY, _csv(list(history[0]), [list(row.values()) for row in history]))
    try:
        picture = draw_curves(history, int(best["epoch"]), title)
    except ImportError:
        if len(history) == 1:
            log.info("matplotlib is not installed: no %s", CURVES)
        return
    write_file(output / CURVES, picture)


def write_bad(output: Path, bad: Mapping[str, str]) -> None:
    """Writes the table of unreadable training pictures, with key and error, unless there is
    none."""
    if bad:
        write_file(output / BAD_FILES, _csv(["key", "error"], sorted(bad.items())))
        log.warning("%d unreadable training pictures, see %s", len(bad), BAD_FILES)


def results(config: Config) -> tuple[str, ...]:
    """Names of the weights that a finished run has left: of a detector the best and last ones; of a
    backbone the last ones, in the published layout that a detector's training starts from."""
    return (BEST, FINAL) if config.train.objective == DETECTION else (PUBLISHED[FINAL],)


def keep_weights(
    path: Path,
    model: Detector,
    config: Config,
    row: Row,
    trained_on: Sequence[str],
    until: str = "",
) -> None:
    """Writes a model's weights with a card that says how they came about, and in the published
    layout where the recipe says so.

    Args:
        path: of the safetensors file; the published one lies beside it.
        model: whose validation `row` has.
        config: of the run.
        row: of the history.
        trained_on: sorted names of the generators that it learnt from.
        until: the year or month by whose end these were out, '' where none was asked for.
    """
    values = {k: v for k, v in row.items() if k in (VAL_LOSS, *VALIDATED)}
    extra = {"config": config.as_dict(), "epoch": int(row["epoch"]), "validation": values}
    extra |= {"trained_on": list(trained_on)} | ({"until": until} if until else {})
    if config.train.objective == DETECTION:
        card = Card(config.detector, describe_options(model.options), extra=extra)
        save_weights(path, own_state(model), card)
    if config.train.publish or config.train.objective != DETECTION:
        name = PUBLISHED.get(path.name, path.with_suffix(".pth").name)
        # With the frozen parts: a published file holds them, and `publish` picks those it needs.
        whole = {key: value.cpu() for key, value in model.state_dict().items()}
        save_original(path.with_name(name), type(model).publish(whole))
