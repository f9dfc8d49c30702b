"""Turns a published weight file into safetensors, with the same key names.

    python scripts/convert_weights.py spai.pth spai.safetensors
    python scripts/convert_weights.py open_clip_model.safetensors siglip.safetensors --dtype bf16

Reads state dicts, checkpoints with a state dict under `model`, and files that hold several state
dicts by name, whose keys then start with that name. What it writes loads like the published file,
but runs no code, holds no optimizer, and loads faster.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.cli.argument_parser import Parser  # noqa: E402
from scripts._shared import answer, new_parser  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

PROGRAM = "convert_weights.py"
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def parser() -> Parser:
    """The command line."""
    p = new_parser(PROGRAM, __doc__)
    p.add_argument("input", type=Path, metavar="IN", help="a published .pth, .pt or .safetensors")
    p.add_argument("output", type=Path, metavar="OUT", help="the .safetensors file to write")
    p.add_argument("--dtype", choices=tuple(DTYPES), help="of numbers with fraction (as they are)")
    return p


def convert(state: dict[str, Tensor], dtype: str | None) -> dict[str, Tensor]:
    """The same tensors in another precision, each with memory of its own, as the format wants.
    Raises WeightsError where a number is too large for the precision."""
    import torch

    from detectors._errors import WeightsError
    from engine.weights.original import separate

    converted = dict(state)
    for key, value in state.items():
        if dtype and value.is_floating_point():
            converted[key] = value.to(getattr(torch, DTYPES[dtype]))
            if not torch.equal(converted[key].isfinite(), value.isfinite()):
                raise WeightsError(f"{key}: expected numbers that fit {dtype}; found larger ones")
    return separate(converted)


def run(args: argparse.Namespace) -> int:
    """The exit status of a conversion, of whose file a line tells."""
    from safetensors.torch import save_file

    from detectors._errors import WeightsError
    from engine.runtime.files import replacing
    from engine.weights.cards import sha256
    from engine.weights.files import read_weights

    state, card = read_weights(args.input)
    if card is not None:
        what = "expected a published file; found one of this project already"
        raise WeightsError(f"{args.input}: {what}")
    state = convert(state, args.dtype)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.output) as temporary:
        save_file(state, temporary, {"format": "pt"})  # some libraries read no file without it
        temporary.chmod(0o644)  # safetensors makes it readable to its owner alone
    size = args.output.stat().st_size
    print(f"{args.output}: {len(state)} tensors, {size} bytes, sha256 {sha256(args.output)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    p = parser()
    args = p.parse_args(arguments)
    if args.output.suffix != ".safetensors":
        p.error(f"OUT: expected a name that ends in .safetensors; found {args.output.name}")
    if args.output.exists():
        p.error(f"OUT: expected a file that is not there yet; found {args.output}")
    from safetensors import SafetensorError

    from detectors._errors import WeightsError

    return answer(PROGRAM, lambda: run(args), (WeightsError, SafetensorError, OSError))


if __name__ == "__main__":
    sys.exit(main())
