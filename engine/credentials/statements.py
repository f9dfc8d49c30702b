"""What fields of metadata say about a picture's origin: generators, settings, labels, cameras.

`reading` calls it, inside of a child process with limits. A statement repeats what a file says of
itself, with where it stood; whether that is true nobody can tell from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..plain_data import parse_json
from ..runtime.text import one_line
from .fields import Field

# Kinds of statements: `source_type` is IPTC's DigitalSourceType, `label` China's AIGC mark (GB
# 45438-2025), `remote_manifest` the address of a C2PA manifest, which is never fetched.
KINDS = (
    "source_type", "label", "generator", "settings", "software", "camera", "remote_manifest",
)  # fmt: skip
MOST, LONGEST = 40, 300  # statements of a picture, characters of one
# Fields that name a program or a service; texts for people, as descriptions, name many things.
NAMING = {
    "Software", "CreatorTool", "softwareAgent", "Source", "Credit", "Title", "title", "Artist",
    "Author", "creator", "AISystemUsed", "Make", "Model", "comment",
}  # fmt: skip
GENERATORS = re.compile(
    r"NovelAI|Midjourney|DALL[-·. ]?E|OpenAI|ChatGPT|GPT-4o|Firefly|Stable ?Diffusion|SDXL|ComfyUI"
    r"|InvokeAI|Fooocus|Draw Things|Google AI|Imagen\b|Gemini|Bing Image Creator"
    r"|Microsoft Designer|Ideogram|Leonardo\.?AI|Black Forest Labs|FLUX\.\d|Recraft"
    r"|Imagined with AI|Stability AI|NightCafe|Craiyon|DreamStudio|Jimeng|Doubao|Seedream",
    re.IGNORECASE,
)
# Settings as Stable Diffusion web UIs write them below the prompts.
WEB_UI = re.compile(r"\bSteps: \d{1,5}, [A-Z][\w ]{1,30}: ")
MIDJOURNEY = re.compile(r"\bJob ID: [0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
COMFY = re.compile(r"(?:(prompt|workflow):)?\s*(?=\{)", re.IGNORECASE)
COMFY_MODELS = ("ckpt_name", "unet_name", "lora_name")
INVOKE = ("invokeai_metadata", "invokeai_graph", "invokeai_workflow", "sd-metadata", "Dream")
LABELS = {"1": "generated", "2": "may be generated", "3": "suspected to be generated"}


@dataclass(frozen=True)
class Statement:
    """`kind`, one of KINDS; the `text` on one line, bounded, without control characters; and
    `where` it stood."""

    kind: str
    text: str
    where: str


def _object(text: str) -> dict[str, Any]:
    """The JSON object that a text spells; empty for any other text."""
    try:
        content = parse_json(text) if text.lstrip().startswith("{") else None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _source_type(field: Field) -> Iterator[tuple[str, str]]:
    """IPTC's term, without the vocabulary's address."""
    if field.name == "DigitalSourceType":
        yield "source_type", field.text.rstrip("/").rpartition("/")[2]


def _label(field: Field) -> Iterator[tuple[str, str]]:
    """The AIGC mark: a property of XMP, a text of PNG, or JSON in EXIF's UserComment."""
    if field.name == "AIGC":
        mark: Any = _object(field.text) or field.text
    elif field.where.startswith("XMP TC260:"):
        mark = f"{field.name} {field.text}"
    else:
        mark = _object(field.text).get("AIGC") if field.name == "UserComment" else None
    if isinstance(mark, dict):
        code = str(mark.get("Label", "?"))
        producer = mark.get("ContentProducer")
        made_by = f", by {producer}" if producer else ""
        yield "label", f"AIGC {code} ({LABELS.get(code, 'unknown code')}){made_by}"
    elif mark:
        yield "label", f"AIGC {mark}"


def _web_ui(field: Field) -> Iterator[tuple[str, str]]:
    """Settings of Stable Diffusion's web UIs: PNG text `parameters`, or a comment elsewhere."""
    if WEB_UI.search(field.text):
        yield "generator", "Stable Diffusion web UI"
        yield "settings", field.text
    elif field.name == "parameters":
        yield "settings", field.text


def _comfy_models(graph: dict[str, Any]) -> list[str]:
    """Names of model files that the nodes of a prompt name."""
    inputs = [node.get("inputs") for node in graph.values() if isinstance(node, dict)]
    named = [i.get(key) for i in inputs if isinstance(i, dict) for key in COMFY_MODELS]
    return list(dict.fromkeys(map(str, filter(None, named))))[:8]


def _comfy(field: Field) -> Iterator[tuple[str, str]]:
    """ComfyUI's graphs: PNG texts `prompt` and `workflow`; EXIF's Model and Make elsewhere."""
    start = COMFY.match(field.text)
    if not start or not (field.name in ("prompt", "workflow") or start[1]):
        return
    graph = _object(field.text[start.end() :])
    nodes = [node for node in graph.values() if isinstance(node, dict)]
    if isinstance(graph.get("nodes"), list) or any("class_type" in node for node in nodes):
        yield "generator", "ComfyUI"
    if models := _comfy_models(graph):
        yield "settings", f"models {', '.join(models)}"


def _invoke(field: Field) -> Iterator[tuple[str, str]]:
    """InvokeAI's texts of PNG, old and new."""
    if field.name in INVOKE:
        content = _object(field.text)
        version = content.get("app_version")
        yield "generator", f"InvokeAI {version}" if isinstance(version, str) else "InvokeAI"
        model = content.get("model") or content.get("model_weights")
        if isinstance(model, dict):
            model = model.get("name") or model.get("model_name")
        if model:
            yield "settings", f"models {model}"


def _midjourney(field: Field) -> Iterator[tuple[str, str]]:
    """A prompt with the number of its job, as Midjourney writes it into descriptions."""
    if MIDJOURNEY.search(field.text):
        yield "generator", "Midjourney"
        yield "settings", field.text


def _named(field: Field) -> Iterator[tuple[str, str]]:
    """Generators that a field names; other programs; cameras."""
    if COMFY.match(field.text):
        return
    if field.name in NAMING and GENERATORS.search(field.text, 0, LONGEST):
        yield "generator", field.text
    elif field.name in ("Software", "CreatorTool", "softwareAgent"):
        yield "software", field.text
    elif field.name == "AISystemUsed":
        yield "generator", field.text
    elif field.name in ("Make", "Model"):
        yield "camera", field.text


def _remote_manifest(field: Field) -> Iterator[tuple[str, str]]:
    """The address of a manifest that is not in the file (C2PA specification 2.1, A.4)."""
    if field.where == "XMP dcterms:provenance":
        yield "remote_manifest", field.text


RECOGNISERS = (
    _source_type, _label, _web_ui, _comfy, _invoke, _midjourney, _named, _remote_manifest,
)  # fmt: skip


def statements(fields: Sequence[Field]) -> list[Statement]:
    """The first MOST statements that fields make, each once, in the order of the fields."""
    rows = (
        Statement(kind, one_line(text, LONGEST), one_line(field.where, LONGEST))
        for field in fields
        for recogniser in RECOGNISERS
        for kind, text in recogniser(field)
    )
    return list(dict.fromkeys(rows))[:MOST]
