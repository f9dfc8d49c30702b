"""Writes weights as a folder in the layout of Hugging Face's hub: config.json, weights and a card.

    python scripts/publish.py runs/mine/best.safetensors my_detector
    python scripts/publish.py default my_detector --without_frozen

`--weights my_detector` and `engine.api.load("my_detector")` read it, and, once it is uploaded,
`hf:ORG/NAME`. docs/usage/library.md says what else can.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.cli.argument_parser import Parser  # noqa: E402
from scripts._shared import answer, new_parser  # noqa: E402

if TYPE_CHECKING:
    from detectors._base import Detector
    from engine.weights.cards import Card
    from engine.weights.loaded import Loaded

PROGRAM = "publish.py"
LIBRARY = "synthetic-picture-detectors"
PAGE = """\
---
library_name: {library}
pipeline_tag: image-classification
tags:
- ai-generated-image-detection
- pytorch_model_hub_mixin
---

# {title}

A detector of AI-generated pictures (`{detector}`): it gives a picture's logit, positive for
synthetic, and the probability that it is. Above {threshold:g} it is called synthetic{band}.

```python
from engine.api import load

print(load("hf:ORG/NAME").score("photo.jpg"))
```

`config.json` has the options of the network, `model.safetensors` its weights{frozen}.
"""


def parser() -> Parser:
    """The command line."""
    p = new_parser(PROGRAM, __doc__, "2 wrong weights, or the folder is there", whole=True)
    p.add_argument("weights", metavar="DETECTOR_WEIGHTS",
                   help="a weight file, the folder of a training, or a name of "
                   "pretrained/manifest.yaml")  # fmt: skip
    p.add_argument("output", type=Path, metavar="DIR", help="a folder that is not there yet")
    p.add_argument("--detector", metavar="NAME", help="of weights without a card")
    p.add_argument("--without_frozen", action="store_true",
                   help="leave out frozen encoders that pretrained/manifest.yaml has: smaller, and "
                   "read by this project alone")  # fmt: skip
    return p


def config_of(card: Card, model: Detector, frozen: dict[str, str]) -> dict[str, Any]:
    """The content of config.json.

    Args:
        card: of the weights, whose words come first.
        model: whose transform is described, with mean and deviation of each channel where it has
            one of each.
        frozen: parts that the weights leave out, as `Detector.external` has them.
    """
    from engine.weights.hub import SAID

    transform: Any = model.transform(train=False)
    mean, std = (getattr(transform, name, None) for name in ("mean", "std"))
    described = {
        "library_name": LIBRARY,
        **{name: getattr(card, name) for name in SAID},
        "positive": "synthetic",
        "normalisation": {"mean": mean, "std": std} if mean and std else None,
        "transform": {"name": type(transform).__name__} | dataclasses.asdict(transform),
        "frozen": frozen,
    }
    return json.loads(json.dumps(described))


def page_of(card: Card, model: Detector, frozen: dict[str, str], licence: str | None) -> str:
    """The content of README.md.

    Args:
        card, model, frozen: as `config_of` has them.
        licence: of the weights, as the manifest states it.
    """
    band = f", from {card.band[0]:g} to {card.band[1]:g} uncertain" if card.band else ""
    left_out = f", without those of its frozen parts ({', '.join(frozen.values())})"
    page = PAGE.format(
        library=LIBRARY, title=model.title, detector=card.detector, threshold=card.threshold,
        band=band, frozen=left_out if frozen else "",
    )  # fmt: skip
    stated = f"\nLicence of the weights, as their source states it: {licence}.\n"
    return page + (stated if licence else "")


def opened(args: argparse.Namespace) -> Loaded:
    """The detector with its weights, under the keys that weight files have."""
    import detectors
    from detectors._errors import OptionError
    from engine.config import USUAL
    from engine.weights.choice import Choice
    from engine.weights.loaded import detector_of
    from engine.weights.loading import build
    from engine.weights.opening import weight_file

    # The manifest calls a detector's usual weights by its name.
    named = args.weights if args.weights in detectors.available() else USUAL
    choice = Choice(args.detector or detector_of(args.weights) or named, args.weights)
    if choice.combined:
        raise OptionError(f"expected one detector; found {choice.detector}: publish its members")
    file = weight_file(choice)
    loaded = build(choice.detector, choice.resolve(file).options, file)
    loaded.model.float()
    return loaded


def run(args: argparse.Namespace) -> int:
    """The exit status. Writes the files, each whole or not at all, config.json last."""
    from detectors._options import describe_options
    from engine.runtime.files import write_file
    from engine.weights import hub, manifest
    from engine.weights.cards import Card
    from engine.weights.files import save_weights
    from engine.weights.loaded import card_of

    loaded = opened(args)
    model, earlier, entry = loaded.model, card_of(loaded.path), manifest.entry_at(loaded.path)
    card = Card(
        loaded.name, describe_options(model.options), loaded.threshold, loaded.band,
        earlier.extra if earlier else None,
    )  # fmt: skip
    frozen = type(model).external(model.options) if args.without_frozen else {}
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(tuple(frozen))}
    args.output.mkdir(parents=True, exist_ok=True)
    licence = entry.licence if entry else None
    save_weights(args.output / manifest.WEIGHTS, state, card)
    write_file(args.output / hub.README, page_of(card, model, frozen, licence))
    described = json.dumps(config_of(card, model, frozen), indent=2)
    write_file(args.output / hub.CONFIG, described + "\n")
    for name in (hub.CONFIG, manifest.WEIGHTS, hub.README):
        print(f"{args.output / name}: {(args.output / name).stat().st_size} bytes")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    p = parser()
    args = p.parse_args(arguments)
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        p.error(f"DIR: expected a folder that is not there yet; found {args.output}")
    from detectors._errors import OptionError, WeightsError
    from engine.config import ConfigError

    return answer(PROGRAM, lambda: run(args), (ConfigError, OptionError, WeightsError))


if __name__ == "__main__":
    sys.exit(main())
