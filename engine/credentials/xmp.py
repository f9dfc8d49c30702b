"""Properties of an XMP packet, read by defusedxml: no entity is expanded, no DTD accepted.

`fields` calls it. Only namespaces that say where a picture came from are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
NAMESPACES = {
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#": "stEvt",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://purl.org/dc/terms/": "dcterms",
    "http://www.tc260.org.cn/ns/AIGC/1.0/": "TC260",
}
MOST = 200  # properties of a packet that are looked at


def _split(name: str) -> tuple[str, str] | None:
    """Prefix and local name of ElementTree's `{namespace}name`; None outside NAMESPACES."""
    namespace, _, local = name.removeprefix("{").partition("}")
    prefix = NAMESPACES.get(namespace) or NAMESPACES.get(f"{namespace}/")
    return (prefix, local) if prefix else None


def _walk(root: Element) -> Iterator[tuple[str, str]]:
    """Names and texts of attributes and elements, in the packet's order; a member of a list stands
    under the property whose list it is (XMP specification part 1, 7.5 to 7.7)."""
    todo = [(root, "")]  # no recursion: a packet may nest a thousand elements
    while todo:
        element, above = todo.pop()
        own = above if element.tag.startswith(RDF) else element.tag
        for name, value in element.attrib.items():
            yield own if name == f"{RDF}resource" else name, value
        if text := (element.text or "").strip():
            yield own, text
        todo += [(child, own) for child in reversed(element)]


def properties(packet: bytes) -> Iterator[tuple[str, str, str]]:
    """Prefix, name and text of the first MOST properties in NAMESPACES.

    Raises:
        ValueError: no well-formed XML, or one that declares entities.
    """
    try:
        root = fromstring(packet.strip(b"\0 \r\n\t"), forbid_dtd=True)
    except DefusedXmlException as error:
        raise ValueError("it declares a DTD or entities, which XMP has none of") from error
    except ParseError as error:
        raise ValueError(f"no well-formed XML: {error}") from error
    count = 0
    for name, text in _walk(root):
        if (parts := _split(name)) and count < MOST:
            count += 1
            yield (*parts, text)
