"""Maps of what a detector sees: its penultimate features, by t-SNE and PCA.

    python scripts/embed.py data/test.csv --output runs/map
    python scripts/embed.py data/pictures --detector spai --weights spai --limit 200 --output runs/m

INPUTs are CSV files, folders, archives or pictures. Features are what the last layer of the
detector gets: of CO-SPY's fusion those are the logits of its branches, and --branch names one of
them; of a frozen encoder under a fitted layer, the encoder's values. DIR gets features.npz
(features (N, F) float32, keys, labels, generators, sources), points.csv (a row a picture: both
maps' coordinates), and tsne.png and pca.png, each coloured by class, by generator and by source.
Distances between far groups of a t-SNE map mean nothing; those of PCA do. Same pictures and seed,
same maps. Standard output has the files.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import Label, LayoutError, Record  # noqa: E402
from engine.cli import machine, rules  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number  # noqa: E402
from engine.cli.inputs import collect  # noqa: E402
from engine.cli.parser import shared  # noqa: E402
from scripts._shared import answer, new_parser, parse_as_main, tell_left_out, write_table  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detectors._base import Detector
    from engine.config import Config
    from engine.runtime.device import Device

PROGRAM = "embed.py"
FEATURES, POINTS = "features.npz", "points.csv"
FLAGS = (
    "detector", "config", "set", "train_dataset", "mode", "branch", "weights", "backbone_weights",
    "pretrain", "ckpt", "device", "gpu", "precision", "batch_size", "threads", "workers",
    "max_megapixels", "picture_memory", "picture_seconds", "csv_root", "split", "debug",
)  # fmt: skip
FEWEST = 5  # pictures, below which there is nothing to map
REDUCED = 50  # dimensions that t-SNE starts from, as its authors do
MOST_NAMES = 14  # of generators or sources that a legend tells apart; the others are "other"
COLUMNS = ("key", "class", "generator", "source", "tsne_x", "tsne_y", "pca_x", "pca_y")
Floats = NDArray[np.float32]


@dataclass
class Penultimate:
    """What the last linear layer that ran was given, in the order of its calls."""

    inputs: list[Tensor] = field(default_factory=list)
    layer: nn.Module | None = None

    def note(self, layer: nn.Module, given: tuple[Tensor, ...], _: Any) -> None:
        """A forward hook of linear layers."""
        if layer.out_features <= 2:  # type: ignore[operator]
            if layer is not self.layer:
                self.layer, self.inputs = layer, []
            self.inputs.append(given[0])

    def features(self, pictures: int) -> Floats:
        """(pictures, F); of several views a picture, their mean. Pictures of several sizes are
        classified in a call each. Raises ConfigError where no classifier ran."""
        import torch

        from engine.config import ConfigError

        if not self.inputs:
            raise ConfigError("expected a detector that ends in a linear layer; found none")
        last = torch.cat([part.detach().float().cpu() for part in self.inputs])
        self.layer, self.inputs = None, []
        return last.reshape(pictures, -1, last.shape[-1]).mean(dim=1).numpy()


@contextmanager
def listening(model: Detector) -> Iterator[Penultimate]:
    """A model's classifier under observation."""
    from torch import nn

    heard = Penultimate()
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    handles = [layer.register_forward_hook(heard.note) for layer in layers]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def embedded(
    model: Detector, records: Sequence[Record], device: Device, config: Config, workers: Any
) -> tuple[Floats, list[Record], dict[str, str]]:
    """Features (N, F) of the readable pictures, these, and what is wrong with the others, by key:
    what a frozen part that comes first gives, or else what the classifier gets.

    Args:
        model: with its weights, on its device.
        records: the pictures.
        device: where the model is, and its precision.
        config: has the batch size.
        workers: who decodes.
    """
    import torch

    from datasets._images import PictureDataset
    from engine.runtime.progress import Progress
    from engine.runtime.workers import in_turn
    from engine.scoring.torch_backend import move

    pictures = PictureDataset(
        records, model.transform(train=False), seed=config.score.seed, limits=workers.limits,
        decoding=workers.decoding,
    )  # fmt: skip
    rows: list[Floats] = []
    kept: list[Record] = []
    bad: dict[str, str] = {}
    with listening(model) as heard, Progress(len(records), "features") as progress:
        for items in in_turn(pictures, config.score.batch_size, workers):
            bad |= {records[i.index].key: i.error for i in items if i.value is None}
            if readable := [item for item in items if item.value is not None]:
                batch = move(model.collate([item.value for item in readable]), device.device)
                with torch.inference_mode(), device.autocast():
                    if model.embeds:
                        rows.append(model.embed(batch).float().flatten(1).cpu().numpy())
                    else:
                        model(batch)
                        rows.append(heard.features(len(readable)))
                kept += [records[item.index] for item in readable]
            progress.advance(len(items))
    return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32), kept, bad


def limited(records: Sequence[Record], most: int | None, seed: int) -> list[Record]:
    """At most so many pictures of each generator and source, drawn at random, in their order."""
    if most is None:
        return list(records)
    order = np.random.default_rng(seed).permutation(len(records))
    counts: dict[tuple[str, str, Label | None], int] = {}
    chosen = []
    for index in order.tolist():
        group = records[index].generator, records[index].source, records[index].label
        counts[group] = counts.get(group, 0) + 1
        if counts[group] <= most:
            chosen.append(index)
    return [records[index] for index in sorted(chosen)]


def maps(features: Floats, perplexity: float, seed: int) -> dict[str, Floats]:
    """Coordinates (N, 2) of the t-SNE map and of the first two principal components, of features
    that are brought to one scale."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    values = features - features.mean(axis=0)
    deviation = values.std(axis=0)
    values = values / np.where(deviation > 0, deviation, 1)
    most = min(REDUCED, *values.shape)
    components = PCA(most, svd_solver="full").fit_transform(values)
    perplexity = min(perplexity, (len(values) - 1) / 3)
    tsne = TSNE(init="pca", perplexity=perplexity, random_state=seed, n_jobs=1)
    plane = np.zeros((len(values), 2), np.float32)
    plane[:, : components.shape[1]] = components[:, :2]
    return {"tsne": tsne.fit_transform(components).astype(np.float32), "pca": plane}


def groups(records: Sequence[Record]) -> dict[str, list[str]]:
    """How the points may be coloured: title -> each picture's group."""
    classes = {Label.REAL: "real", Label.FAKE: "synthetic", None: "unknown"}
    return {
        "class": [classes[record.label] for record in records],
        "generator": [record.generator or classes[record.label] for record in records],
        "source": [record.source or "none" for record in records],
    }


def drawn(points: Floats, records: Sequence[Record], title: str) -> bytes:
    """A panel a colouring, as PNG. Groups beyond MOST_NAMES, the smallest, are grey."""
    from engine.reporting import drawing

    # One colour for all says nothing; by class there is a panel in any case.
    shown_by = {k: m for k, m in groups(records).items() if k == "class" or len(set(m)) > 1}
    figure = drawing.figure(5 * len(shown_by), 5)
    panels = figure.subplots(1, len(shown_by), squeeze=False)[0]
    for axes, (name, members) in zip(panels, shown_by.items(), strict=True):
        names, counts = np.unique(members, return_counts=True)
        shown = sorted(names[np.argsort(-counts, kind="stable")][:MOST_NAMES].tolist())
        rest = np.isin(members, shown, invert=True)
        if rest.any():
            axes.scatter(*points[rest].T, s=8, color="0.75", label="other")
        for index, group in enumerate(shown):
            colour, marker = drawing.series(index)
            own = np.array(members) == group
            axes.scatter(*points[own].T, s=10, color=colour, marker=marker, alpha=0.7,
                         label=drawing.label(group))  # fmt: skip
        axes.set(title=f"{title}, by {name}", xticks=[], yticks=[])
        drawing.plain(axes.legend(fontsize=7, frameon=False, markerscale=1.5))
    return drawing.png(figure)


def write(
    output: Path, features: Floats, records: Sequence[Record], points: dict[str, Floats]
) -> list[Path]:
    """The files that were written.

    Args:
        output: their folder.
        features: (N, F).
        records: the N pictures.
        points: as `maps` has them.
    """
    from engine.runtime.files import write_file

    buffer = io.BytesIO()
    labels = [-1 if record.label is None else int(record.label) for record in records]
    np.savez_compressed(
        buffer, features=features, labels=np.array(labels),
        keys=np.array([record.key for record in records]),
        generators=np.array([record.generator for record in records]),
        sources=np.array([record.source for record in records]),
    )  # fmt: skip
    files = [write_file(output / FEATURES, buffer.getvalue())]
    rows = [
        [record.key, "" if label < 0 else label, record.generator, record.source,
         *points["tsne"][i].tolist(), *points["pca"][i].tolist()]
        for i, (record, label) in enumerate(zip(records, labels, strict=True))
    ]  # fmt: skip
    write_table(output / POINTS, COLUMNS, rows)
    files.append(output / POINTS)
    for name, title in (("tsne", "t-SNE"), ("pca", "PCA")):
        files.append(write_file(output / f"{name}.png", drawn(points[name], records, title)))
    return files


def run(args: argparse.Namespace) -> int:
    """The exit status of a command line. Maps what it names.

    Raises:
        LayoutError: fewer pictures than can be mapped.
        ConfigError: the output holds earlier maps.
    """
    from datasets._limits import UPRIGHT
    from engine.cli import settings
    from engine.config import ConfigError
    from engine.runtime import distributed, threads
    from engine.weights import opening

    rules.check_named(args, rules.detector_named(args))
    if (args.output / FEATURES).exists() and not args.replace:
        raise ConfigError(f"{args.output} holds earlier maps: add --overwrite, or name another")
    args.output.mkdir(parents=True, exist_ok=True)  # fails before hours of features, not after
    records = limited(collect(args.input, args.csv_root, args.split), args.most, args.drawn)
    device = machine.device(args, args.precision)
    threads.set_threads(args.threads, device.device, distributed.ALONE, None)
    loaded, config = opening.load(settings.chosen(args), device)
    workers = machine.workers(args, len(records), settings.decoding(config, UPRIGHT))
    features, kept, bad = embedded(loaded.model, records, device, config, workers)
    if len(kept) < FEWEST:
        raise LayoutError(f"expected at least {FEWEST} readable pictures; found {len(kept)}")
    points = maps(features, args.perplexity, args.drawn)
    for path in write(args.output, features, kept, points):
        print(path)
    tell_left_out(PROGRAM, bad, "could not be read")
    return 1 if bad else 0


def parser() -> Parser:
    """The command line."""
    status = "0 done; 1 done, but some pictures could not be read; 2 wrong usage, weights or data"
    p = new_parser(PROGRAM, __doc__, status, whole=True, parents=[shared(FLAGS)])
    p.add_argument("input", nargs="+", metavar="INPUT", help="CSV, folder, archive or pictures")
    p.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the maps")
    p.add_argument("--limit", dest="most", type=number(int, 1), metavar="N",
                   help="at most N pictures of each generator and source, drawn (all)")  # fmt: skip
    p.add_argument("--perplexity", type=number(float, 1, 1000), default=30.0, metavar="P",
                   help="of t-SNE, at most a third of the pictures (%(default)g)")  # fmt: skip
    p.add_argument("--seed", dest="drawn", type=number(int, 0, 2**32 - 1), default=0, metavar="N",
                   help="of the draw and of t-SNE (%(default)s)")  # fmt: skip
    p.add_argument("--overwrite", dest="replace", action="store_true", help="replace earlier maps")
    return p


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    args = parse_as_main(parser(), arguments)
    args.input, args.pictures = [*args.input, *args.pictures], []
    from detectors._errors import OptionError, WeightsError
    from engine.config import ConfigError

    errors = (LayoutError, ConfigError, OptionError, WeightsError)
    return answer(PROGRAM, lambda: run(args), errors)


if __name__ == "__main__":
    sys.exit(main())
