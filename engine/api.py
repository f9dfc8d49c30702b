"""The library: a detector loaded once, that scores, explains and streams pictures.

    from engine.api import load
    row = load().score("photo.jpg")            # row.score, row.label, row.error

Phase test and the pages score through the same `Scorer`, so that a picture has one score wherever
it is asked for. Stable are `load`, `Machine`, the methods of `Scorer` down to `stream`, `Row` and
`Explanation`; what else is here serves the project itself. Nothing is printed or written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, overload

from PIL import Image

import detectors
from datasets import Record
from datasets._images import Inspect, UnreadablePicture, as_file, decode, read_bytes
from datasets._limits import UPRIGHT, Limits

from .config import USUAL, Config, ConfigError
from .runtime import threads
from .runtime.workers import Workers
from .scoring import backends, loop, own_threshold
from .scoring.answer import Answer, Row, recodings, row_of
from .scoring.backend import Backend
from .scoring.loop import ScoringOptions
from .scoring.own_threshold import OwnThreshold
from .scoring.probability import EVEN
from .scoring.verdict_rule import VerdictRule, rule_of
from .weights.choice import Choice
from .weights.loaded import Loaded, detector_of

__all__ = ["Explanation", "Machine", "Picture", "Row", "Scorer", "load"]

# A file, its content, or an opened picture, which counts as it is in memory; a pair says under
# which path its row stands.
Content = str | os.PathLike[str] | bytes | Image.Image
Picture = Content | tuple[str, Content] | Record
Drawn = Callable[[Record, Image.Image], None]


@dataclass(frozen=True)
class Explanation:
    """The row of a picture, and the picture with what the score rests on drawn over it; None for
    one that could not be read."""

    row: Row
    picture: Image.Image | None


@dataclass(frozen=True)
class Machine:
    """How a machine is used. `precision`: fp32, bf16 or fp16; `threads` that compute, of the whole
    process, None = one for each core; `workers`: processes that decode, which start as there is
    work for them, None = as many as processors; 0 = decode in this process, which limits
    neither memory nor time; `limits` on one picture."""

    precision: str = "fp32"
    threads: int | None = None
    workers: int | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Scorer:
    """A detector with its weights and verdict rule, ready to score; `load` makes one.

    A picture that cannot be read gives a row with its `error`, never an exception; a score does
    not depend on the other pictures, but for its last digits: sums are taken batch by batch. Not
    for several threads at a time.
    """

    backend: Backend = field(repr=False)
    loaded: Loaded = field(repr=False)
    config: Config
    rule: VerdictRule
    workers: Workers
    # The same detector by PyTorch, which alone explains; None where it computes already.
    by_torch: Callable[[], Scorer] | None = None
    inspect: Inspect | None = None  # as ScoringOptions has it

    @overload
    def score(self, pictures: Content | Record) -> Row: ...  # type: ignore[overload-overlap]
    @overload
    def score(self, pictures: Iterable[Picture]) -> list[Row]: ...
    def score(self, pictures: Content | Record | Iterable[Picture]) -> Row | list[Row]:
        """The row of a picture, or the rows of several in their order; a tuple is several."""
        if isinstance(pictures, str | os.PathLike | bytes | Image.Image | Record):
            [row] = self.stream([pictures])
            return row
        return list(self.stream(pictures))

    def explain(self, picture: Picture) -> Explanation:
        """The row of a picture and a drawing of what its score rests on, computed by PyTorch.

        Raises:
            OptionError: the detector has nothing to show.
        """
        [explanation] = self.explained([picture])
        return explanation

    def stream(
        self,
        pictures: Iterable[Picture],
        *,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Iterator[Row]:
        """The rows of any number of pictures, in their order and as they are scored.

        Pictures are taken from the iterable as there is room: two batches for each process that
        decodes are held, and nothing else grows.

        Args:
            pictures: of files, bytes or opened pictures.
            batch_size: pictures that are handed on together; None = `score.batch_size`.
            workers: processes that decode; None = as the scorer was loaded.

        Raises:
            TypeError: one of the pictures is none.
            ConfigError: such numbers are not possible, or a process that decodes cannot be started.
        """
        if (batch_size is not None and batch_size < 1) or (workers is not None and workers < 0):
            raise ConfigError(
                f"expected batch_size from 1 and workers from 0; found {batch_size} and {workers}"
            )
        scorer = self
        if batch_size is not None:
            config = replace(self.config, score=replace(self.config.score, batch_size=batch_size))
            scorer = replace(scorer, config=config)
        if workers is not None:
            scorer = replace(scorer, workers=replace(self.workers, count=workers))
        for batch in scorer.answers(scorer.records(pictures)):
            yield from map(self.row, batch)

    # --- for phase test and the pages

    def records(self, pictures: Iterable[Picture]) -> Iterator[Record]:
        """Records of pictures, as they are taken. Raises TypeError for what is no picture."""
        for number, picture in zip(count(), pictures):
            yield _record(picture, f"[{number}]", self.workers.decoding)

    @property
    def options(self) -> ScoringOptions:
        """How pictures are scored, without their explanations."""
        score = self.config.score
        return ScoringOptions(
            score.batch_size, self.workers, score.seed, views=self.rule.views, inspect=self.inspect
        )

    def answers(
        self, records: Iterable[Record], show: Drawn | None = None
    ) -> Iterator[list[Answer]]:
        """Answers on records under the rule's prevalence, a batch at a time; `show` gets each
        readable picture with its explanation drawn over it."""

        def draw(record: Record, relevance: Any) -> None:
            image = decode(read_bytes(record), self.workers.limits, self.workers.decoding)
            assert show is not None
            show(record, self.loaded.model.overlay(image, relevance))

        options = replace(self.options, show=show and draw)
        for batch in loop.answers(self.backend, records, options):
            yield [answer.restated(self.rule.prevalence) for answer in batch]

    def row(self, answer: Answer, **more: Any) -> Row:
        """The row of an answer, with what was asked for beside its score."""
        return row_of(answer, self.rule, self.loaded, **more)

    def explained(self, pictures: Iterable[Picture]) -> list[Explanation]:
        """Explanations of a few pictures, all of which are held. Raises OptionError."""
        scorer = replace(self.by_torch(), rule=self.rule) if self.by_torch else self
        scorer.check_explain()
        records = list(scorer.records(pictures))
        drawings: dict[int, Image.Image] = {}  # by the record, for names may be the same

        def keep(record: Record, drawing: Image.Image) -> None:
            drawings[id(record)] = drawing

        answers = [answer for batch in scorer.answers(records, keep) for answer in batch]
        return [
            Explanation(scorer.row(answer), drawings.get(id(record)))
            for record, answer in zip(records, answers, strict=True)
        ]

    def check_explain(self) -> None:
        """Raises OptionError when the detector has nothing that an explanation could show; one of
        a graph has."""
        if self.by_torch is None:
            self.loaded.model.check_explain()

    def stable(self) -> Scorer:
        """The same scorer, whose verdicts have to hold when a picture is re-encoded; a row's `more`
        has the `stability`."""
        return replace(self, rule=replace(self.rule, views=recodings()))


def _record(picture: Picture, name: str, decoding: str) -> Record:
    """The record of a picture; `name` for one in memory that has none. Raises TypeError."""
    if isinstance(picture, Record):
        return picture
    if isinstance(picture, tuple):
        name, picture = picture
        path = Path(name)
    elif isinstance(picture, str | os.PathLike):
        name, path = os.fspath(picture), Path(picture)
    else:
        path = Path(name)
    if isinstance(picture, str | os.PathLike):
        return Record(name, Path(picture))
    if isinstance(picture, bytes):
        return Record(name, path, content=picture)
    if isinstance(picture, Image.Image):
        try:
            return Record(name, path, content=as_file(picture, decoding))
        except UnreadablePicture as error:
            return Record(name, path, error=str(error))
    kind = type(picture).__name__
    raise TypeError(f"{name}: expected a path, bytes or a PIL picture; found {kind}")


def scorer_of(
    opened: backends.Opened,
    threshold: float | OwnThreshold | None,
    prevalence: float,
    workers: Workers,
    by_torch: Callable[[], Scorer] | None = None,
) -> Scorer:
    """The scorer of an opened detector.

    Args:
        opened: as `backends` opens it.
        threshold, prevalence: as `rule_of` has them.
        workers: who decodes.
        by_torch: opens it anew with PyTorch, where something else computes; called once.

    Raises:
        ConfigError: the threshold is another detector's, or this one takes others' scores, which
            say nothing of new pictures.
    """
    backend, loaded, config = opened
    if by_torch is None and detectors.load(loaded.name).score_files(config.options):
        raise ConfigError(
            f"{loaded.name}.scores: expected --phase eval or train, whose pictures such files "
            "list; found new pictures"
        )
    own_threshold.check_serves(threshold, loaded, config)
    rule = rule_of(loaded, threshold, prevalence)
    return Scorer(backend, loaded, config, rule, workers, by_torch and cache(by_torch))


def _choice(
    detector: str | os.PathLike[str] | None,
    weights: str | os.PathLike[str] | None,
    options: Mapping[str, Any] | None,
    backbones: Sequence[str | os.PathLike[str]],
) -> Choice:
    """The detector that arguments of `load` mean. Raises ConfigError."""
    path = None if weights is None else os.fspath(weights)
    name = None if detector is None else os.fspath(detector)
    if name is not None and name not in detectors.available():
        if path is not None or detector_of(name) is None:
            known = ", ".join(detectors.available())
            raise ConfigError(
                f"expected one of {known}, or weights whose card names theirs; found {name!r}"
            )
        name, path = None, name
    name = name or (path and detector_of(path)) or USUAL
    own = {name: options} if options else {}
    return Choice(name, path, tuple(os.fspath(path) for path in backbones), own=own)


def load(
    detector: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    *,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
    backbones: Sequence[str | os.PathLike[str]] = (),
    threshold: float | str | os.PathLike[str] | None = None,
    prevalence: float = EVEN,
    machine: Machine = Machine(),
) -> Scorer:
    """A detector with its weights, ready to score as the command line does.

    Args:
        detector: its name, or weights whose card names it; None = that of the weights' card, else
            the one that ships.
        weights: as --weights has them; None = those of the detector's name.
        device: cpu, cuda, cuda:N or mps; None = the first of CUDA and CPU that is there.
        options: of the detector, by name, over those that the weights were trained with.
        backbones: files, or names, of frozen parts that the weights leave out.
        threshold: probability above which a picture is called synthetic, or a file that
            scripts/own_threshold.py wrote; None = that of the weights.
        prevalence: share of generated pictures that scores are stated for, in (0, 1).
        machine: precision, threads, decoding processes and limits.

    Raises:
        ConfigError: no such detector, device, option or threshold.
        WeightsError: no such weights, or another detector's; the message says what to do.
    """
    choice = _choice(detector, weights, options, backbones)
    rule: float | OwnThreshold | None
    if threshold is None or isinstance(threshold, int | float):
        rule = threshold
    else:
        rule = own_threshold.read(Path(threshold))
    if not 0 < prevalence < 1 or (isinstance(rule, int | float) and not 0 <= rule <= 1):
        raise ConfigError(
            f"expected a threshold from 0 to 1, and a prevalence between them; found {threshold} "
            f"and {prevalence}"
        )

    def by_torch() -> Scorer:
        from .runtime.device import open_device

        on = open_device(device, machine.precision)
        opened = backends.by_torch(choice, on, machine.threads)
        return scorer_of(opened, rule, prevalence, workers)

    processes = threads.decoders() if machine.workers is None else machine.workers
    workers = Workers(processes, machine.limits, UPRIGHT)
    opened = backends.by_graph(choice, device, machine.precision, machine.threads)
    return scorer_of(opened, rule, prevalence, workers, by_torch) if opened else by_torch()
