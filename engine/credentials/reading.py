"""All that a picture's file says of its origin, as one value, and how it is told.

Phase test and the pages call `credentials` with the bytes of a file. Whatever a file does to its
readers, which are child processes with limits, the caller goes on; and no score is looked at or
changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image
from pydantic import TypeAdapter

from datasets import Record
from datasets._images import UnreadablePicture, read_bytes, register_formats

from ..runtime.confined import ConfinedError, Limits, confined
from ..runtime.text import one_line
from . import manifests
from .fields import fields
from .manifests import INSTALL, NONE, UNCHECKED, Manifest, Signature, TrustList, mime_type
from .statements import LONGEST, MOST, Statement, statements

COLUMNS = ("c2pa", "issuer", "metadata")  # of predictions.csv
# Beside the file itself, which readers copy; decoders of AVIF and HEIF open such files.
LIMITS = Limits(memory=1 << 30, seconds=10)
INDENT = " " * 8


@dataclass(frozen=True)
class Credentials:
    """What a file says of itself. `statements`: of its metadata; `c2pa`: its signed manifests;
    `problems`: what could not be read, a line each."""

    statements: tuple[Statement, ...]
    c2pa: Signature
    problems: tuple[str, ...] = ()


def _metadata(content: bytes) -> dict[str, Any]:
    """Values of statements and problems, for a child process."""
    Image.MAX_IMAGE_PIXELS = None  # nothing is decoded, and this process ends with the picture
    rows, problems = fields(content)
    return {"statements": [asdict(s) for s in statements(rows)], "problems": problems[:MOST]}


def _confined(
    call: Callable[..., dict[str, Any]], *arguments: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a reader found, and what stopped it."""
    try:
        return confined(call, *arguments, limits=LIMITS), ()
    except ConfinedError as error:
        return {}, (str(error),)


def credentials(content: bytes, trust: TrustList | None = None) -> Credentials:
    """What a picture's file says of its origin. Raises nothing for whatever file.

    Args:
        content: of the file.
        trust: whose signatures are trusted; without it every intact one is of an unknown signer.
    """
    register_formats()  # here, or every child would import them again
    found, problems = _confined(_metadata, content)
    signed: dict[str, Any] = {"state": NONE}
    if mime := mime_type(content):
        signed = {"state": UNCHECKED, "reasons": [INSTALL]}
        if manifests.available():
            signed, stopped = _confined(manifests.signature, content, mime, trust and trust.pem)
            signed = signed or {"state": UNCHECKED, "reasons": stopped}
    return TypeAdapter(Credentials).validate_python(
        {
            "statements": found.get("statements", ()),
            "c2pa": signed,
            "problems": [one_line(p, LONGEST) for p in (*found.get("problems", ()), *problems)],
        }
    )


def of_record(record: Record, trust: TrustList | None = None) -> Credentials | None:
    """`credentials` of a record's file; None where that cannot be read."""
    try:
        return credentials(read_bytes(record), trust)
    except UnreadablePicture:
        return None


def as_json(told: Credentials | None) -> dict[str, Any] | None:
    """The object `credentials` of --json; None for a file that cannot be read."""
    return asdict(told) if told else None


def as_row(told: Credentials | None) -> tuple[str | None, ...]:
    """A picture's values of COLUMNS; none for a file that cannot be read."""
    if told is None:
        return (None,) * len(COLUMNS)
    issuer = next((m.issuer for m in told.c2pa.manifests if m.active), "")
    return told.c2pa.state, issuer, "; ".join(f"{s.kind}: {s.text}" for s in told.statements)


def _manifest_line(manifest: Manifest) -> str:
    """A manifest on one line: who signed, which program, what was done."""
    issuer = manifest.issuer or "an issuer without a name"
    who = f"signed by {issuer}" if manifest.active else f"made from a picture signed by {issuer}"
    parts = [f"{who}, {manifest.signed}" if manifest.signed else who]
    parts += [f"generator {manifest.generator}"] if manifest.generator else []
    parts += [" ".join(filter(None, (a.action, a.source_type, a.agent))) for a in manifest.actions]
    return "; ".join(parts)


def as_lines(told: Credentials | None) -> list[str]:
    """Lines for people, to stand below the picture's verdict."""
    if told is None:
        return []
    state = told.c2pa.state.replace("_", " ")
    why = f" ({', '.join(told.c2pa.reasons)})" if told.c2pa.reasons else ""
    lines = [f"{s.kind}: {s.text}  [{s.where}]" for s in told.statements]
    lines += [f"c2pa: {state}{why}"]
    lines += [f"c2pa: {_manifest_line(manifest)}" for manifest in told.c2pa.manifests]
    lines += [f"unread: {problem}" for problem in told.problems]
    return [INDENT + line for line in lines]
