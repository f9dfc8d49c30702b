"""Draws how each detector works, from a picture, by the functions that the detectors compute with.

    python scripts/draw_methods.py                                # docs/methods/*.png
    python scripts/draw_methods.py photo.jpg --output runs/methods
    python scripts/draw_methods.py --verdicts                     # docs/verdicts.png
    python scripts/draw_methods.py --degradations                 # docs/degradations.png

No weights are needed: what a trained network would say is drawn as a box. CO-SPY is drawn in its
variant `progan`, whose residual needs no autoencoder. `--verdicts` draws what the shipped detector
says of a folder of pictures instead, `--degradations` a picture after what it may go through.
Standard output has the paths of the files.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets._images import UnreadablePicture, decode  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.reporting.drawing import BLUE, GREY, VERMILION, figure, png  # noqa: E402
from engine.runtime.files import write_file  # noqa: E402
from scripts._shared import answer, new_parser  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROGRAM = "draw_methods.py"
EXAMPLE = ROOT / "data" / "examples" / "real" / "coffee.png"
EXAMPLES = ROOT / "data" / "examples"
FOLDER = ROOT / "docs" / "methods"
VERDICTS, DEGRADATIONS = "verdicts.png", "degradations.png"
SHOWN = (
    "none", "instagram:random", "meme", "post", "screenshot",
    "print-scan", "enlarge:4", "repost:8", "social:whatsapp", "jpeg:10",
)  # fmt: skip
WORDS = {"synthetic": "AI-Generated", "real": "Real", "uncertain": "Uncertain"}
# Inches: a panel, an arrow's room, the words above and below, the edge.
SIDE, GAP, ABOVE, BELOW, MARGIN = 1.3, 0.28, 0.22, 0.36, 0.06
AMPLIFIED = 4  # times that residuals are shown larger than they are
Draw = Callable[["Axes"], None]


@dataclass(frozen=True)
class Panel:
    """A step: a picture, or a box with words where there is none. `row`, `column`: its place;
    `after`: numbers of the panels that arrows come from; `marks` draws on the picture."""

    title: str
    row: float
    column: int
    pixels: np.ndarray | None = None
    words: str = ""
    after: tuple[int, ...] = ()
    marks: Draw | None = None


def stretched(values: np.ndarray) -> np.ndarray:
    """Any range -> [0, 1], all but the outermost hundredths in even steps."""
    low, high = np.percentile(values, (1, 99))
    return ((values - low) / max(high - low, 1e-9)).clip(0, 1)


def gray(values: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] -> (H, W, 3)."""
    return np.repeat(values[..., None], 3, axis=-1)


def as_picture(x: object) -> np.ndarray:
    """A (3, H, W) tensor -> (H, W, 3)."""
    return np.asarray(x).transpose(1, 2, 0)


def outlines(boxes: Sequence[tuple[int, int]], side: int, strong: Sequence[int]) -> Draw:
    """Squares at (top, left), those numbered in `strong` in a colour of their own."""

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for number in sorted(range(len(boxes)), key=lambda n: n in strong):
            (top, left), marked = boxes[number], number in strong
            ink, width = (VERMILION, 1.8) if marked else ("white", 0.7)
            for colour, line in (("black", width + 0.7), (ink, width)):
                square = Rectangle((left, top), side, side, fill=False, ec=colour, lw=line)
                axes.add_patch(square)

    return draw


def circle(radius: float) -> Draw:
    """A circle about the centre of a 224 px spectrum."""

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Circle

        axes.add_patch(Circle((111.5, 111.5), radius, fill=False, ec=VERMILION, lw=1.8))

    return draw


def spai(image: Image.Image) -> list[Panel]:
    """Patches, the split of one patch's spectrum, and what looks at it."""
    import torch

    from detectors import _spectral
    from detectors._spai_options import SpaiOptions
    from detectors._spai_pictures import as_item, padded, patch_corners, seen_part

    # Enlarged so that a grid fits: of fewer than four patches SPAI takes corners and centre.
    options = SpaiOptions(resize_to=2 * _spectral.PATCH)
    pixels = padded(seen_part(image, options))
    corners = patch_corners(len(pixels), pixels.shape[1], False, options.minimum_patches)
    chosen = len(corners) // 2
    top, left = corners[chosen]
    patch = as_item(pixels)[:, top : top + 224, left : left + 224].float() / 255
    low, high = (view[0] for view in _spectral.split_frequencies(patch[None]))
    spectrum = torch.fft.fftshift(torch.fft.fft2(patch.mean(dim=0))).abs().log1p()
    # In blocks of 4 x 4: single frequencies are noise, which fills a file and tells nothing.
    blocks = torch.nn.functional.avg_pool2d(spectrum[None], 4)[0].numpy().repeat(4, 0).repeat(4, 1)
    lowest = int(_spectral.frequency_mask().sum().item())
    return [
        Panel(f"{len(corners)} patches of 224 px", 0.5, 0, pixels / 255,
              "any size; a grid", (), outlines(corners, 224, [chosen])),
        Panel("spectrum of a patch", 0.5, 1, gray(stretched(blocks)),
              f"circle: the {lowest} lowest\nof 50,176 frequencies", (0,),
              circle(_spectral.RADIUS)),
        Panel("low frequencies", 0, 2, as_picture(low).clip(0, 1), "inside the circle", (1,)),
        Panel("high frequencies", 1, 2, gray((AMPLIFIED * high.mean(dim=0)).clip(0, 1).numpy()),
              f"the rest, {AMPLIFIED} x", (1,)),
        Panel("", 0.5, 3, None, "patch, low and high\npass one ViT-B/16 that\nmasked frequencies\n"
              "pre-trained; how alike\ntheir features are,\nblock by block, is the\npatch's vector",
              (2, 3)),
        Panel("", 0.5, 4, None, "attention weighs\nthe vectors of all\npatches\n→ one score", (4,)),
    ]  # fmt: skip


def cospy(image: Image.Image) -> list[Panel]:
    """The residual of the variant progan, the other branch, and their fusion."""
    from detectors import _transforms as T
    from detectors._cospy_views import centred
    from detectors._resnet import neighbour_residual
    from detectors.cospy import VARIANTS

    seen = T.to_tensor(centred(image, VARIANTS["progan"].joint))[None]
    residual = neighbour_residual(seen)
    restored = (seen - residual * 1.5)[0]  # 2/3 of the difference is the residual
    shown = (0.5 + AMPLIFIED * residual[0]).clip(0, 1)
    return [
        Panel("the middle of the picture", 0.5, 0, as_picture(seen[0]), "224 px"),
        Panel("halved and doubled", 0, 1, as_picture(restored).clip(0, 1),
              "sd-v1_4: encoded and\ndecoded by an autoencoder", (0,)),
        Panel("residual", 0, 2, as_picture(shown), f"what that loses, {AMPLIFIED} x", (1,)),
        Panel("artifact branch", 0, 3, None, "a small ResNet learns\nto judge the residual\n"
              "→ logit a", (2,)),
        Panel("semantic branch", 1, 3, None, "CLIP (sd-v1_4: SigLIP),\nfrozen, sees what the\n"
              "picture shows; one layer\n→ logit s", (0,)),
        Panel("fusion", 0.5, 4, None, "u · s + v · a + b\n→ score;\nu, v, b are fitted while\n"
              "both branches rest", (3, 4)),
    ]  # fmt: skip


def ssp(image: Image.Image) -> list[Panel]:
    """The simplest of 64 patches, and its noise residual."""
    from detectors.ssp import (
        PATCH,
        Ssp,
        SspOptions,
        own_rng,
        patches_to_item,
        prepare,
        random_corners,
        simplest,
        texture_score,
    )

    options, image = SspOptions(layers=(1, 1, 1, 1)), prepare(image)
    pixels = np.asarray(image)
    corners = random_corners(image.width, image.height, own_rng(image))
    order = simplest(pixels, corners, len(corners))
    places = [(int(y), int(x)) for y, x in corners]

    def crop(number: int) -> np.ndarray:
        top, left = places[number]
        return pixels[top : top + PATCH, left : left + PATCH]

    residual = Ssp(options).residual(patches_to_item(image, corners[order[:1]]))[0]
    least, most = (texture_score(crop(number)) for number in (order[0], order[-1]))
    return [
        Panel(f"{len(corners)} random patches", 0.5, 0, pixels / 255, "of 32 px", (),
              outlines(places, PATCH, order[:1])),
        Panel("the simplest", 0, 1, stretched(crop(order[0])),
              f"texture {least:,};\ncontrast raised", (0,)),
        Panel("the busiest, not used", 1, 1, crop(order[-1]) / 255, f"texture {most:,}"),
        Panel("noise residual", 0, 2, gray(stretched(residual[1].detach().numpy())),
              "at 256 px; the second\nof three SRM filters", (1,)),
        Panel("", 0, 3, None, "a ResNet-50 judges\nthe three residuals\n→ one score", (3,)),
    ]  # fmt: skip


def default(image: Image.Image) -> list[Panel]:
    """The views of the detector that ships, and its two branches."""
    from detectors import _transforms as T
    from detectors._default_options import DefaultOptions
    from detectors.default import Views, view_corners

    options = DefaultOptions()
    image = T.pad_to(image, options.crop)
    corners = view_corners(image.width, image.height, options.crop, options.views)
    views = Views(options, train=False)(image, np.random.default_rng(0))
    return [
        Panel("the whole picture", 0, 0, as_picture(views[0]) / 255, "shrunk to 224 px"),
        Panel("", 0, 1, None, "a frozen CLIP ViT-B/16;\na linear layer judges the\n"
              "class tokens of its last\neight blocks → logit", (0,)),
        Panel(f"{len(corners)} crops of {options.crop} px", 1, 0, np.asarray(image) / 255,
              "centre and corners,\nnever shrunk", (),
              outlines([(y, x) for x, y in corners], options.crop, [0])),
        Panel("", 1, 1, None, "an EfficientNet-Lite0\njudges each crop\n→ mean logit", (2,)),
        Panel("", 0.5, 2, None, "a layer on both logits,\ncalibrated → score; in the\n"
              "band of doubt: Uncertain", (1, 3)),
    ]  # fmt: skip


def ensemble(_: Image.Image) -> list[Panel]:
    """What an average makes of two members' logits."""
    import torch

    from detectors._fusion import Fusion

    axis = torch.linspace(-8, 8, 224)
    pairs = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
    with torch.no_grad():
        score = Fusion(2, "average")(pairs).sigmoid().reshape(224, 224).flip(0).numpy()

    def contours(axes: Axes) -> None:
        axes.contour(score, levels=[0.25, 0.5, 0.75], colors=VERMILION, linewidths=1.2)

    return [
        Panel("members", 0.5, 0, None, "two detectors or more,\neach with its weights,\n"
              "see the picture\n→ a logit each"),
        Panel("", 0.5, 1, None, "each logit calibrated,\nprobability kept from\n0.001 to 0.999",
              (0,)),
        Panel("the mean of two", 0.5, 2, gray(score),
              "logits -8 to 8; lines:\nscore 0.25, 0.5, 0.75", (1,), contours),
        Panel("", 0.5, 3, None, "or a layer fitted to\nlabelled pictures\n→ score", (2,)),
    ]  # fmt: skip


METHODS: dict[str, Callable[[Image.Image], list[Panel]]] = {
    "spai": spai,
    "cospy": cospy,
    "ssp": ssp,
    "default": default,
    "ensemble": ensemble,
}


class NoVerdicts(Exception):
    """Pictures that could not be scored and explained."""


def verdicts(folder: Path) -> list[Panel]:
    """Columns of a picture and its evidence, from the highest score to the lowest.

    Args:
        folder: at most ten pictures, better few; scored by the command line with the shipped
            weights, so that the drawing shows what a user gets.

    Raises:
        NoVerdicts: the command line could not score them.
    """
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "run"
        command = [sys.executable, ROOT / "main.py", "--explain", "--output", output]
        run = subprocess.run(
            [*map(str, command), "--input", folder], capture_output=True, text=True
        )
        if run.returncode:
            raise NoVerdicts(run.stderr)
        with (output / "predictions.csv").open(encoding="utf-8", newline="") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: -float(row["score"]))
        panels = []
        for column, row in enumerate(rows):
            path = Path(row["path"])
            # The drawing's name is the picture's and a sum of its path.
            (drawing,) = (output / "explain").glob(f"{path.stem}_*.png")
            with Image.open(drawing) as image:
                # The square that the detector saw; the scale below it is too small to be read here.
                evidence = np.asarray(image.convert("RGB"))[: image.width]
            picture = ImageOps.fit(decode(path.read_bytes()), evidence.shape[1::-1])
            verdict = f"{float(row['score']):.3f}  {WORDS[row['label']]}"
            name = f"{path.parent.name}/{path.stem}"
            panels += [Panel(verdict, 0, column, np.asarray(picture), name),
                       Panel("evidence of each patch", 1, column, evidence,
                             "" if column else "yellow: synthetic\nviolet: real")]  # fmt: skip
        return panels


def degraded(image: Image.Image) -> list[Panel]:
    """A picture after each of SHOWN, in two rows; what is not square in the middle of one."""
    from engine.scoring import degradations

    square = ImageOps.fit(image, (360, 360), Image.Resampling.LANCZOS)
    panels = []
    for index, name in enumerate(SHOWN):
        chain = degradations.parse(name)
        result = chain(square, np.random.default_rng(2)) if chain else square
        shown = ImageOps.pad(result, square.size, Image.Resampling.LANCZOS, "white")
        words = f"{result.width} x {result.height} px"
        panels.append(Panel(name, index // 5, index % 5, np.asarray(shown), words))
    return panels


def draw_panel(axes: Axes, panel: Panel) -> None:
    """A step in its place: title above, words below, or words alone in a box."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(panel.title, fontsize=8, pad=3)
    if panel.pixels is None:
        axes.text(0.5, 0.5, panel.words, ha="center", va="center", fontsize=6.8)
        axes.set_facecolor("#F2F2F2")
        axes.spines[:].set_color(GREY)
        return
    axes.imshow(panel.pixels, interpolation="antialiased")
    axes.set_xlabel(panel.words, fontsize=7, labelpad=3)
    if panel.marks:
        panel.marks(axes)


def drawing(panels: Sequence[Panel], colours: int = 96) -> bytes:
    """The steps from left to right, with arrows between them, as PNG of so many colours."""
    from matplotlib.patches import ConnectionPatch

    columns = max(panel.column for panel in panels) + 1
    rows = 2 if any(panel.row == 1 for panel in panels) else 1
    width = columns * (SIDE + GAP) - GAP + 2 * MARGIN
    height = rows * (ABOVE + SIDE + BELOW) + MARGIN
    canvas = figure(width, height)
    canvas.set_layout_engine("none")
    places = []
    for panel in panels:
        row = panel.row if rows == 2 else 0.0
        left = MARGIN + panel.column * (SIDE + GAP)
        bottom = height - row * (ABOVE + SIDE + BELOW) - ABOVE - SIDE
        box = (left / width, bottom / height, SIDE / width, SIDE / height)
        places.append(canvas.add_axes(box))
        draw_panel(places[-1], panel)
    for panel, axes in zip(panels, places, strict=True):
        for number in panel.after:
            arrow = ConnectionPatch((1.02, 0.5), (-0.02, 0.5), "axes fraction", "axes fraction",
                                    axesA=places[number], axesB=axes, arrowstyle="-|>",
                                    color=BLUE, lw=1.6)  # fmt: skip
            canvas.add_artist(arrow)
    return smaller(png(canvas), colours)


def smaller(content: bytes, colours: int) -> bytes:
    """A PNG of few colours, which photographs of so few px can do with; without dithering, which
    would not compress."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    few = image.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def parser() -> Parser:
    """The command line."""
    p = new_parser(PROGRAM, __doc__)
    p.add_argument("picture", type=Path, nargs="?", metavar="PICTURE",
                   help="to draw with (one of data/examples)")  # fmt: skip
    p.add_argument("--output", type=Path, metavar="DIR", help="(docs/methods; docs)")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--degradations", action="store_true",
                       help="draw PICTURE after what it may go through")  # fmt: skip
    which.add_argument("--verdicts", action="store_true",
                   help="draw what the shipped detector says of the pictures in a folder PICTURE "
                   "(data/examples), and by what evidence")  # fmt: skip
    return p


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    args = parser().parse_args(arguments)

    def run() -> int:
        if args.verdicts:
            output = args.output or FOLDER.parent
            # More colours: several photographs share them.
            drawings = {VERDICTS: drawing(verdicts(args.picture or EXAMPLES), colours=256)}
        elif args.degradations:
            output = args.output or FOLDER.parent
            panels = degraded(decode((args.picture or EXAMPLE).read_bytes()))
            drawings = {DEGRADATIONS: drawing(panels, colours=256)}
        else:
            image = decode((args.picture or EXAMPLE).read_bytes())
            output = args.output or FOLDER
            drawings = {f"{name}.png": drawing(method(image)) for name, method in METHODS.items()}
        output.mkdir(parents=True, exist_ok=True)
        for name, content in drawings.items():
            print(write_file(output / name, content))
        return 0

    return answer(PROGRAM, run, (UnreadablePicture, NoVerdicts))


if __name__ == "__main__":
    sys.exit(main())
