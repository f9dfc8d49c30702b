"""What is odd about an evaluation, in lines for its log and the top of its report.

Three mistakes give numbers that look like results: pictures that the weights were trained on,
labels the wrong way round, and one picture in both classes. None is an error: all may be meant, so
nothing here stops a run. Called by phase eval once the table is complete.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ..scoring.table import ScoreRow
from . import estimates
from .estimates import Metrics

# A detector that knows nothing has an AUROC of 0.5; with so many pictures of each class, one below
# this is no chance (three standard deviations).
REVERSED, ENOUGH = 0.4, 50


def _trained_on(rows: Sequence[ScoreRow], trained: Collection[str]) -> Iterator[str]:
    seen = {row.key: None for row in rows if row.digest and row.digest in trained}
    if seen:
        total = len({row.key for row in rows})
        yield (
            f"{len(seen)} of {total} pictures, such as {next(iter(seen))}, are ones that the "
            "weights were trained on: the numbers flatter the detector"
        )


def _in_both_classes(rows: Sequence[ScoreRow]) -> Iterator[str]:
    """By the content of the file."""
    classes: tuple[dict[str, str], dict[str, str]] = {}, {}
    for row in rows:
        if row.digest and row.label is not None:
            classes[row.label].setdefault(row.digest, row.key)
    real, synthetic = classes
    both = [digest for digest in real if digest in synthetic]
    if both:
        first = both[0]
        yield (
            f"{len(both)} pictures are labelled real and synthetic at once, such as {real[first]} "
            f"and {synthetic[first]}: one of the labels is wrong"
        )


def _reversed(pooled: Metrics) -> Iterator[str]:
    auroc = pooled.estimates.get(estimates.AUROC)
    if auroc and auroc.value < REVERSED and min(pooled.n_real, pooled.n_synthetic) >= ENOUGH:
        yield (
            f"the AUROC is {100 * auroc.value:.1f} %, below chance: are the labels swapped? "
            "1 = synthetic, 0 = real"
        )


def hints(rows: Sequence[ScoreRow], pooled: Metrics, trained: Collection[str]) -> tuple[str, ...]:
    """Lines about what is odd.

    Args:
        rows: of the table.
        pooled: their metrics, all pictures together.
        trained: digests of the pictures that the weights were trained on.
    """
    return (*_trained_on(rows, trained), *_in_both_classes(rows), *_reversed(pooled))
