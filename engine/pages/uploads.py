"""Pictures out of a request's body, in memory: a form with files, or JSON with base64.

The server calls `read`. Nothing is written to a disk, no address is fetched, and a body is given up
as soon as it is larger, slower or of more parts than the limits allow.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from datasets import Record

from ..runtime.text import reason
from .guard import Refusal

FIELD, LIST = "files", "images"
EXPECTED = (
    f"expected a form (multipart/form-data) with one or more files in the field {FIELD}, or JSON "
    f'{{"{LIST}": [base64, ...]}}'
)
MEGABYTE = 1 << 20
FIELDS = 8  # of a form beside its files; nothing reads them
LONGEST = 200  # characters of a file's name


@dataclass(frozen=True)
class UploadLimits:
    """Limits on one request: `megabytes` of its whole body, `pictures` in it, and `seconds` until
    all of it is here."""

    megabytes: float = 32.0
    pictures: int = 16
    seconds: float = 30.0

    @property
    def bytes(self) -> int:
        """The largest body, in bytes."""
        return int(self.megabytes * MEGABYTE)


class UploadError(Exception):
    """A body that is none of ours or beyond a limit; `refusal` is the answer to it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(status, reason)


def _too_large(limits: UploadLimits) -> UploadError:
    return UploadError(413, f"expected at most {limits.megabytes:g} MB; found more")


async def _counted(request: Request, limits: UploadLimits) -> AsyncGenerator[bytes, None]:
    """The body's chunks, up to the limit. Raises UploadError beyond it."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.bytes:
            raise _too_large(limits)
        yield chunk


async def _form(request: Request, limits: UploadLimits) -> list[tuple[str, bytes]]:
    """Names and contents of a form's files."""
    parser = MultiPartParser(
        request.headers, _counted(request, limits),
        max_files=limits.pictures, max_fields=FIELDS, max_part_size=MEGABYTE,
    )  # fmt: skip
    # Beyond this a file would go to the disk; no body is so large.
    parser.spool_max_size = limits.bytes + 1
    form = await parser.parse()
    files = [
        (value.filename or "", await value.read())
        for name, value in form.multi_items()
        if name == FIELD and isinstance(value, UploadFile)
    ]
    await form.close()
    return files


async def read_json(request: Request, limits: UploadLimits, expected: str = EXPECTED) -> Any:
    """A body as JSON; `expected` for the message. Raises UploadError where it is none."""
    body = b"".join([chunk async for chunk in _counted(request, limits)])
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UploadError(400, f"{expected}; found no JSON: {reason(error)}") from error


async def _json(request: Request, limits: UploadLimits) -> list[tuple[str, bytes]]:
    """Contents of JSON's pictures, named by their place in the list."""
    content = await read_json(request, limits)
    images = content.get(LIST) if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(text, str) for text in images):
        raise UploadError(400, f"{EXPECTED}; found other JSON")
    try:
        decoded = [base64.b64decode(text, validate=True) for text in images]
    except (binascii.Error, ValueError) as error:
        raise UploadError(400, f"{EXPECTED}; found other text than base64: {error}") from error
    return [(f"{LIST}[{number}]", picture) for number, picture in enumerate(decoded)]


def _name(name: str) -> str:
    """A file's name as it is shown: printable, not too long; browsers send it without folders."""
    shown = "".join(letter if letter.isprintable() else "_" for letter in name)
    return shown[:LONGEST] or "picture"


async def read(request: Request, limits: UploadLimits) -> list[Record]:
    """The pictures of a request.

    Raises:
        UploadError: another body than EXPECTED, or one beyond the limits.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    readers = {"multipart/form-data": _form, "application/json": _json}
    if kind not in readers:
        raise UploadError(415, f"{EXPECTED}; found {kind or 'no Content-Type'}")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.seconds):
            files = await readers[kind](request, limits)
    except TimeoutError as error:
        raise UploadError(408, f"expected the body within {limits.seconds:g} s") from error
    except MultiPartException as error:
        raise UploadError(400, f"{EXPECTED}; found a wrong form: {error.message}") from error
    except ClientDisconnect as error:
        raise UploadError(400, "the client went away") from error
    if not 0 < len(files) <= limits.pictures:
        raise UploadError(
            400, f"expected 1 to {limits.pictures} pictures a request; found {len(files)}"
        )
    return [Record(_name(name), Path(_name(name)), content=content) for name, content in files]
