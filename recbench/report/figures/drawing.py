"""A drawn figure as an inline SVG or as files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from recbench.files import replacing
from recbench.report.figures.style import PALETTE, rc

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
_NAMESPACE = re.compile(r"\{[^}]*\}")
_HEX = re.compile(r"#[0-9a-fA-F]{6}\b")
_LONG = re.compile(r"(?<=\d)(\.\d\d)\d+")
"""Places beyond a hundredth of a point."""
_REFERENCE = re.compile(r"#([\w.-]+)")
_NAMES = {value: name for name, value in PALETTE.items()}
_DPI = 200


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure still to be drawn: drawing costs time, and each output wants its own settings."""

    name: str
    """Of its files and of its element on the page: lower case, digits, dashes."""
    title: str
    description: str
    """What a reader who cannot see it should know."""
    draw: Callable[[], Figure]

    def inline(self) -> str:
        """``<svg>`` for an HTML page: title and description inside, every id its own, colours the page's."""
        root = ET.fromstring(self._bytes("svg", facecolor="none"))  # noqa: S314 - matplotlib just wrote it
        _strip(root)
        self._own_ids(root)
        for element in root.iter():
            for key, value in element.attrib.items():
                element.set(key, _LONG.sub(r"\1", _HEX.sub(_variable, value)))
        root.attrib = {
            "viewBox": root.attrib["viewBox"],
            "width": root.attrib["width"],
            "role": "img",
            "aria-labelledby": f"{self.name}-title",
            "aria-describedby": f"{self.name}-desc",
        }
        for place, (tag, text) in enumerate((("title", self.title), ("desc", self.description))):
            element = ET.Element(tag, {"id": f"{self.name}-{tag}"})
            element.text = text
            root.insert(place, element)
        return ET.tostring(root, encoding="unicode")

    def save(self, folder: Path) -> list[Path]:
        """PNG, SVG and PDF under ``folder``, on white, whole or not at all; the same bytes each time."""
        paths = [folder / f"{self.name}.{format_}" for format_ in FORMATS]
        for path in paths:
            content = self._bytes(path.suffix[1:], facecolor=PALETTE["paper"])
            with replacing(path) as beside:
                beside.write_bytes(content)
        return paths

    def _bytes(self, format_: str, facecolor: str) -> bytes:
        import warnings

        import matplotlib as mpl

        metadata: dict[str, dict[str, Any]] = {
            "svg": {"Date": None, "Title": self.title},
            "pdf": {"CreationDate": None, "Title": self.title},
            "png": {"Title": self.title},
        }
        buffer = io.BytesIO()
        settings: dict[Any, Any] = {**rc(), "svg.hashsalt": self.name}
        with mpl.rc_context(settings), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is a box, not an error
            self.draw().savefig(
                buffer, format=format_, dpi=_DPI, facecolor=facecolor, metadata=metadata[format_], bbox_inches="tight"
            )
        return buffer.getvalue()

    def _own_ids(self, root: ET.Element) -> None:
        """Keep only ids that something refers to, and put the figure's name before them: a page holds many figures."""
        used = {
            name
            for element in root.iter()
            for key, value in element.attrib.items()
            if key in ("href", "clip-path", "style", "fill")
            for name in _REFERENCE.findall(value)
        }
        for element in root.iter():
            own = element.attrib.pop("id", None)
            if own in used:
                element.set("id", f"{self.name}-{own}")
            for key in ("href", "clip-path", "style", "fill"):
                if key in element.attrib:
                    element.set(key, _prefixed(element.attrib[key], self.name))


def _prefixed(value: str, name: str) -> str:
    if value.startswith("#") and not _HEX.fullmatch(value):
        return f"#{name}-{value[1:]}"
    return value.replace("url(#", f"url(#{name}-")


def _variable(found: re.Match[str]) -> str:
    name = _NAMES.get(found.group().lower())
    return f"var(--{name})" if name else found.group()


def _strip(root: ET.Element) -> None:
    """Leave out what a page has no use for: namespaces, metadata, styles that would hold for the whole page, fonts."""
    for element in root.iter():
        element.tag = _NAMESPACE.sub("", element.tag)
        element.attrib = {_NAMESPACE.sub("", key): value for key, value in element.attrib.items()}
        if "style" in element.attrib:
            kept = [part for part in element.attrib["style"].split("; ") if not part.startswith("font-family")]
            element.set("style", "; ".join(kept))
    for parent in root.iter():
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
