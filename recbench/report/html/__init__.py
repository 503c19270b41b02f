"""A page as one HTML file that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from recbench.report.blocks import Page
from recbench.report.extra import require
from recbench.report.figures.style import DARK, PALETTE

if TYPE_CHECKING:
    from jinja2 import Environment


def render(page: Page) -> str:
    """The file's text. Every text from outside is escaped; the page's own policy forbids any other script and any request.

    Raises:
        RecbenchError: the extra ``report`` is not installed.
    """
    require("jinja2", "matplotlib")
    script = _own("table.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(page=page, style=_own("style.css"), script=script, script_hash=digest, light=PALETTE, dark=DARK)
    )


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_own), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["signs"] = _signs
    environment.filters["prose"] = _prose
    return environment


def _signs(text: str) -> str:
    """``+-0.0006`` of a terminal as a page prints it."""
    return re.sub(r"(^|[\s(])\+-(?=\d)", "\\1\N{PLUS-MINUS SIGN}", text)


def _prose(text: str) -> str:
    """A sentence in which no line is broken inside a number, or between a number and its percent sign or its p."""
    return re.sub(r"(?<=\d) (?=[\d%])|(?<=\bp) (?=[\d<])", "\N{NO-BREAK SPACE}", _signs(text))


def _own(name: str) -> str:
    return files("recbench.report.html").joinpath(name).read_text(encoding="utf-8")
