"""Signed content credentials (C2PA manifests) of a picture's file, checked by c2pa-python.

`reading` calls it, inside of a child process with limits that cannot open a file or a socket. No
manifest is fetched from the address that a file names, and no revocation is asked for; who is
trusted stands in a file of the user's alone.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..config import ConfigError
from ..runtime.text import one_line, reason

# `unknown_signer`: intact, signed by whom no list of trust names; `invalid`: changed after it was
# signed, or signed wrongly; `unchecked`: there is one, which nobody could read.
State = Literal["none", "trusted", "unknown_signer", "invalid", "unchecked"]
NONE, TRUSTED, UNKNOWN_SIGNER, INVALID, UNCHECKED = get_args(State)
LARGEST_LIST = 4 << 20  # bytes of a list of trust; C2PA's own has some 100,000
MOST, LONGEST = 16, 300  # manifests, actions and reasons that are told; characters of a text
# Failures that say nothing against the picture, only that nobody vouches for its signer any more or
# yet (C2PA specification 2.1, 15.2.2).
UNTRUSTED, EXPIRED = "signingCredential.untrusted", "signingCredential.expired"
INSTALL = "needs the package c2pa-python: bash scripts/setup.sh --all, or pip install c2pa-python"
# What a signer's certificate may be for: e-mail, documents, claims (C2PA's and Microsoft's), time,
# OCSP. c2pa-python itself takes the first alone, and C2PA's conforming signers have others.
PURPOSES = (
    "1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1", "1.3.6.1.4.1.311.76.59.1.9",
    "1.3.6.1.5.5.7.3.8", "1.3.6.1.5.5.7.3.9",
)  # fmt: skip
SETTINGS = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    # Identities would be looked up at addresses that the file names.
    "core": {
        "allowed_network_hosts": [], "decode_identity_assertions": False,
        "max_decompressed_manifest_size_in_mb": 32,
    },
}  # fmt: skip
# By the first bytes of a file: kind, and offset of those that tell. Others carry no manifest that
# c2pa-python reads out of a picture.
MIME_TYPES = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG", "image/png"),
    (8, b"WEBP", "image/webp"),
    (8, b"avif", "image/avif"),
    (4, b"ftyp", "image/heic"),
    (0, b"GIF8", "image/gif"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
)
BOX = b"jumb"  # the type of the box that holds every manifest (ISO 19566-5)


@dataclass(frozen=True)
class TrustList:
    """Certificates of the signers' authorities that the user trusts, as PEM, out of `path`."""

    path: Path
    pem: str
    sha256: str


@dataclass(frozen=True)
class Action:
    """What a manifest says was done: `action` and `source_type` in the terms of C2PA and IPTC,
    `agent` the program; '' where it does not say."""

    action: str
    source_type: str
    agent: str


@dataclass(frozen=True)
class Manifest:
    """One signed manifest: the picture's own (`active`) or that of a picture that went into it.
    `issuer`: the organisation of the signer's certificate, `signer` its name; `generator`: the
    program that made the claim; `signed`: when, as a timestamp says."""

    active: bool
    issuer: str
    signer: str
    generator: str
    signed: str
    actions: tuple[Action, ...]


@dataclass(frozen=True)
class Signature:
    """The state of a picture's content credentials, why they are not trusted, and what they say;
    of an invalid one nothing can be believed."""

    state: State
    reasons: tuple[str, ...] = ()
    manifests: tuple[Manifest, ...] = ()


def available() -> bool:
    """Whether c2pa-python is installed; it stays imported for the child processes."""
    try:
        importlib.import_module("c2pa")
    except (ImportError, OSError):  # OSError: a native library of another system
        return False
    return True


def read_trust_list(path: Path) -> TrustList:
    """The certificates of a PEM file, such as C2PA's published list.

    Raises:
        ConfigError: no such file, one without or with broken certificates, or no c2pa-python.
    """
    if not available():
        raise ConfigError(f"--trust_list: expected what reads them; found none: {INSTALL}")
    from cryptography.x509 import load_pem_x509_certificates  # c2pa-python needs it itself

    try:
        content = path.read_bytes() if path.is_file() else b""
        if len(content) > LARGEST_LIST:
            raise ValueError(f"over {LARGEST_LIST:,} bytes")
        load_pem_x509_certificates(content)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--trust_list {path}: expected certificates in PEM; found {reason(error)}"
        ) from error
    return TrustList(path, content.decode("ascii", "replace"), hashlib.sha256(content).hexdigest())


def mime_type(content: bytes) -> str | None:
    """The kind of a picture's file that may have a manifest; None where it has none for sure."""
    kinds = (kind for at, start, kind in MIME_TYPES if content[at:].startswith(start, 0, 12))
    return next(kinds, None) if BOX in content else None


def _close_files() -> None:
    """Lets this process open no file and no socket any more: limits beyond c2pa's own settings."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(
            resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )


def _text(value: Any) -> str:
    """A value of a manifest as bounded text; '' for what is no text."""
    return one_line(value, LONGEST) if isinstance(value, str) else ""


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, at most MOST; none where it is no list."""
    rows = value if isinstance(value, list) else []
    return [row for row in rows if isinstance(row, dict)][:MOST]


def _program(value: Any) -> str:
    """Name and version of a program, which C2PA writes as an object or as text."""
    if isinstance(value, dict):
        return " ".join(filter(None, (_text(value.get("name")), _text(value.get("version")))))
    return _text(value)


def _actions(manifest: dict[str, Any]) -> Iterator[dict[str, str]]:
    for assertion in _objects(manifest.get("assertions")):
        data = assertion.get("data")
        if _text(assertion.get("label")).startswith("c2pa.actions") and isinstance(data, dict):
            for action in _objects(data.get("actions")):
                yield {
                    "action": _text(action.get("action")),
                    "source_type": _text(action.get("digitalSourceType")).rpartition("/")[2],
                    "agent": _program(action.get("softwareAgent")),
                }


def _manifest(manifest: dict[str, Any], active: bool) -> dict[str, Any]:
    """The values of a `Manifest`, out of c2pa's JSON."""
    signature = manifest.get("signature_info") or {}
    programs = [_program(info) for info in _objects(manifest.get("claim_generator_info"))]
    return {
        "active": active,
        "issuer": _text(signature.get("issuer")),
        "signer": _text(signature.get("common_name")),
        "generator": ", ".join(programs) or _text(manifest.get("claim_generator")),
        "signed": _text(signature.get("time")),
        "actions": list(_actions(manifest))[:MOST],
    }


def _state(found: str | None, codes: list[str], listed: bool) -> State:
    """c2pa's state in our words.

    Args:
        found: Trusted, Valid or Invalid.
        codes: of all failures; it calls a manifest invalid whose signer's certificate alone is out
            of date, after it has compared all sums.
        listed: whether the user named anybody to trust; without, nobody is.
    """
    if found == "Trusted" and listed:
        return TRUSTED
    intact = found in ("Valid", "Trusted") or (codes and {*codes} <= {UNTRUSTED, EXPIRED})
    return UNKNOWN_SIGNER if intact else INVALID


def signature(content: bytes, mime: str, pem: str | None) -> dict[str, Any]:
    """The values of a `Signature`, for a child process: it cannot open a file afterwards.

    Args:
        content: of the picture's file.
        mime: as `mime_type` tells it.
        pem: certificates of those who are trusted.
    """
    import c2pa

    anchors = {"trust_anchors": pem} if pem else {}
    trust = {"trust_config": "\n".join(PURPOSES)} | anchors
    context = c2pa.Context.from_dict(SETTINGS | {"trust": trust})
    _close_files()
    try:
        with c2pa.Reader(mime, io.BytesIO(content), context=context) as reader:
            store = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return {"state": NONE}
    except c2pa.C2paError as error:
        # A picture that only names the address of a manifest has none that could be checked.
        remote = str(error).startswith("Remote")
        return {"state": NONE if remote else INVALID, "reasons": [] if remote else [reason(error)]}
    active = store.get("active_manifest")
    manifests = [m for m in store.get("manifests", {}).items() if isinstance(m[1], dict)]
    ordered = sorted(manifests, key=lambda item: item[0] != active)[:MOST]
    statuses = store.get("validation_status") or []
    codes = list(dict.fromkeys(_text(status.get("code")) for status in statuses))
    state = _state(store.get("validation_state"), codes, bool(pem))
    known = (UNTRUSTED,) if state == UNKNOWN_SIGNER else ()  # what the state says already
    return {
        "state": state,
        "reasons": [code for code in codes if code not in known][:MOST],
        "manifests": [_manifest(manifest, label == active) for label, manifest in ordered],
    }
