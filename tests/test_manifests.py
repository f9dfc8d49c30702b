"""Signed content credentials: whom to trust, what was changed, and that nothing is fetched."""

from __future__ import annotations

import datetime
import errno
import io
import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import c2pa
import pytest
from conftest import make_picture
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from test_credentials import chunk, png, with_chunks

from engine.config import ConfigError
from engine.credentials.manifests import (
    INVALID,
    NONE,
    TRUSTED,
    UNCHECKED,
    UNKNOWN_SIGNER,
    Action,
    TrustList,
    read_trust_list,
)
from engine.credentials.reading import as_json, as_lines, as_row, credentials

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CREATED = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}
CREATED |= {"softwareAgent": {"name": "Painter", "version": "2"}}  # type: ignore[dict-item]
CLAIM = {
    "claim_generator_info": [{"name": "painter.example", "version": "1"}],
    "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [CREATED]}}],
}
EMAIL, DOCUMENTS, CLAIMS = "1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1"
OFFLINE = {"verify": {"verify_after_sign": False}, "builder": {"thumbnail": {"enabled": False}}}
MIME_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "AVIF": "image/avif"}


def name(words: str) -> x509.Name:
    attributes = (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)
    return x509.Name([x509.NameAttribute(attribute, words) for attribute in attributes])


def certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    above: Authority | None,
    ocsp: str = "",
    purpose: str = EMAIL,
) -> x509.Certificate:
    """A certificate of a signer below an authority, or with None of an authority itself."""
    issuer, signing = (above.subject, above.key) if above else (subject, key)
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    root = above is None
    usage = x509.KeyUsage(not root, False, False, False, False, root, root, False, False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(root, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(identifier, False)
    )
    if not root:
        purposes = x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)])
        builder = builder.add_extension(purposes, False)
    if ocsp:
        address = x509.UniformResourceIdentifier(ocsp)
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, address)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), False)
    return builder.sign(signing, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Authority:
    """Issues certificates; `certificate` is its own."""

    subject: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, subject: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(subject, key, certificate(subject, key, None))

    def sign(
        self,
        kind: str = "JPEG",
        remote: str = "",
        ocsp: str = "",
        purpose: str = EMAIL,
        parent: bytes = b"",
    ) -> bytes:
        """A picture that a signer of this authority signed; with `remote` its manifest is only
        named, and lies at that address; with `parent` it was made from that JPEG."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = certificate(f"Signer of {self.subject}", key, self, ocsp, purpose)
        chain = pem(own) + pem(self.certificate)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        picture, signed = io.BytesIO(), io.BytesIO()
        make_picture(1, fake=True).save(picture, kind)
        picture.seek(0)
        builder = c2pa.Builder(CLAIM, c2pa.Context.from_dict(OFFLINE))
        if remote:
            builder.set_no_embed()
            builder.set_remote_url(remote)
        if parent:
            about = {"title": "parent", "relationship": "componentOf"}
            builder.add_ingredient(about, "image/jpeg", io.BytesIO(parent))
        with c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, private, None)) as signer:
            builder.sign(signer, MIME_TYPES[kind], picture, signed)
        return signed.getvalue()

    def trusted(self) -> TrustList:
        return TrustList(Path("trust.pem"), pem(self.certificate).decode(), "")


@pytest.fixture(scope="module")
def known() -> Authority:
    return Authority.new("Known")


@pytest.fixture(scope="module")
def signed(known: Authority) -> bytes:
    return known.sign()


@pytest.mark.parametrize("kind", MIME_TYPES)
def test_a_signer_whom_the_list_names_is_trusted(kind: str, known: Authority) -> None:
    told = credentials(known.sign(kind), known.trusted()).c2pa
    assert (told.state, told.reasons) == (TRUSTED, ())
    (manifest,) = told.manifests
    assert (manifest.active, manifest.issuer, manifest.signer) == (True, *["Signer of Known"] * 2)
    assert manifest.generator == "painter.example 1"
    assert manifest.actions == (Action("c2pa.created", "trainedAlgorithmicMedia", "Painter 2"),)


def test_without_a_list_or_with_another_the_signer_is_unknown(signed: bytes) -> None:
    for trust in (None, Authority.new("Other").trusted()):
        told = credentials(signed, trust)
        assert (told.c2pa.state, told.c2pa.reasons) == (UNKNOWN_SIGNER, ())
        assert "unknown signer" in "\n".join(as_lines(told))


@pytest.mark.parametrize("purpose", [DOCUMENTS, CLAIMS])
def test_certificates_of_conforming_signers_are_accepted(purpose: str, known: Authority) -> None:
    signed = known.sign(purpose=purpose)
    states = [credentials(signed, trust).c2pa.state for trust in (known.trusted(), None)]
    assert states == [TRUSTED, UNKNOWN_SIGNER]


def test_a_picture_that_went_into_one_stands_behind_it(known: Authority, signed: bytes) -> None:
    other = Authority.new("Other")
    told = credentials(other.sign(parent=signed), other.trusted())
    rows = [(manifest.active, manifest.issuer) for manifest in told.c2pa.manifests]
    assert rows == [(True, "Signer of Other"), (False, "Signer of Known")]
    assert "made from a picture signed by Signer of Known" in as_lines(told)[-1]


@dataclass
class Answering:
    """Stands for c2pa's reader: calls a manifest invalid, with these codes."""

    codes: tuple[str, ...]

    def __call__(self, *_: object, **__: object) -> Answering:
        return self

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def json(self) -> str:
        failures = [{"code": code} for code in self.codes]
        return json.dumps({"validation_state": "Invalid", "validation_status": failures})


EXPIRED, UNTRUSTED = "signingCredential.expired", "signingCredential.untrusted"
CHANGED = "assertion.dataHash.mismatch"


@pytest.mark.parametrize(
    ("codes", "state", "reasons"),
    [
        ((UNTRUSTED, EXPIRED), UNKNOWN_SIGNER, (EXPIRED,)),
        ((UNTRUSTED, EXPIRED, CHANGED), INVALID, (UNTRUSTED, EXPIRED, CHANGED)),
        ((*(UNTRUSTED,) * 50, CHANGED), INVALID, (UNTRUSTED, CHANGED)),
        ((), INVALID, ()),
    ],
    ids=["expired", "changed", "changed behind many", "no reason"],
)
def test_an_intact_picture_of_a_certificate_out_of_date_is_not_called_changed(
    codes: tuple[str, ...],
    state: str,
    reasons: tuple[str, ...],
    signed: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(c2pa, "Reader", Answering(codes))
    told = credentials(signed).c2pa
    assert (told.state, told.reasons) == (state, reasons)


def test_a_picture_that_was_changed_is_invalid(known: Authority, signed: bytes) -> None:
    for place in (-20, signed.index(b"painter.example")):  # in the pixels, in the claim
        tampered = bytearray(signed)
        tampered[place] ^= 1
        told = credentials(bytes(tampered), known.trusted()).c2pa
        assert told.state == INVALID
        assert told.reasons
    assert credentials(bytes(tampered)).c2pa.state == INVALID


def test_one_without_a_manifest_has_none() -> None:
    told = credentials(png())
    assert (told.c2pa.state, told.c2pa.manifests) == (NONE, ())
    assert as_row(told) == ("none", "", "")


def test_the_object_is_plain_json(known: Authority, signed: bytes) -> None:
    told = as_json(credentials(signed, known.trusted()))
    assert told is not None
    assert {"state", "reasons", "manifests"} == set(told["c2pa"])
    assert as_row(credentials(signed))[:2] == ("unknown_signer", "Signer of Known")


# --- hostile files


def nested(depth: int) -> bytes:
    """JUMBF boxes in one another, each with the description of a store of manifests."""
    store = bytes.fromhex("6332706100110010800000aa00389b71") + b"\3c2pa\0"
    description = struct.pack(">I", 8 + len(store)) + b"jumd" + store
    sizes = [(8 + len(description)) * (level + 1) for level in range(depth)]
    return b"".join(struct.pack(">I", size) + b"jumb" + description for size in reversed(sizes))


@pytest.mark.parametrize(
    "box",
    [nested(100_000), nested(3), nested(3)[:-9], b"\xff\xff\xff\xffjumb" * 9, b"jumb"],
    ids=["deep", "without a claim", "cut", "sizes that are none", "a word alone"],
)
def test_a_hostile_manifest_is_invalid(box: bytes) -> None:
    told = credentials(with_chunks(png(Software="NovelAI"), chunk(b"caBX", box)))
    assert told.c2pa.state in (INVALID, NONE)
    assert [s.text for s in told.statements] == ["NovelAI"]


def test_a_cut_picture_is_invalid(known: Authority, signed: bytes) -> None:
    start = signed.index(b"jumb")
    states = {
        credentials(signed[:size], known.trusted()).c2pa.state
        for size in range(start + 10, len(signed) - 1, len(signed) // 6)
    }
    assert states <= {INVALID, NONE, UNCHECKED}


# --- no network


@dataclass
class Listener:
    """Counts connections to a port of this machine."""

    address: str
    connections: int = 0


@pytest.fixture
def listener() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard = Listener(f"http://127.0.0.1:{server.getsockname()[1]}/")

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                heard.connections += 1
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield heard
        server.shutdown(socket.SHUT_RDWR)


def test_neither_manifests_nor_revocations_are_fetched(
    known: Authority, listener: Listener
) -> None:
    remote = known.sign(remote=listener.address)
    revocable = known.sign(ocsp=listener.address)
    told = credentials(remote, known.trusted())
    assert told.c2pa.state == NONE
    assert [(s.kind, s.text) for s in told.statements] == [("remote_manifest", listener.address)]
    assert credentials(revocable, known.trusted()).c2pa.state == TRUSTED
    assert listener.connections == 0
    fetching = c2pa.Context.from_dict({"verify": {"remote_manifest_fetch": True}})
    with pytest.raises(c2pa.C2paError):  # that the listener hears those who do fetch
        c2pa.Reader("image/jpeg", io.BytesIO(remote), context=fetching)
    assert listener.connections == 1


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on open files")
def test_the_reader_can_open_no_socket_whatever_its_settings(
    signed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c2pa, "Reader", lambda *_, **__: socket.socket())
    told = credentials(signed).c2pa
    assert told.state == UNCHECKED
    assert os.strerror(errno.EMFILE) in told.reasons[0]


# --- what the user has


def test_without_the_package_metadata_are_told_all_the_same(
    signed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    told = credentials(signed)
    assert told.c2pa.state == UNCHECKED
    assert "pip install c2pa-python" in told.c2pa.reasons[0]
    assert credentials(png(Software="NovelAI")).c2pa.state == NONE
    with pytest.raises(ConfigError, match=r"--trust_list: .*pip install c2pa-python"):
        read_trust_list(Path("trust.pem"))


@pytest.mark.parametrize("content", [None, b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_a_list_without_certificates_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "trust.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"--trust_list .*trust\.pem: expected certificates"):
        read_trust_list(path)


def test_a_list_of_a_file_is_taken(known: Authority, signed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "trust.pem"
    path.write_bytes(pem(Authority.new("Other").certificate) + pem(known.certificate))
    assert credentials(signed, read_trust_list(path)).c2pa.state == TRUSTED
