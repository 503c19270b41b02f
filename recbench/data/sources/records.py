"""Records of a JSON-lines file, also where it is Python-dict text, one big array, or pretty-printed. Nothing is evaluated.

Python-dict text is rewritten into JSON string by string: linear in the length of the line, nothing nested is built
before the JSON reader has bounded it, and what is not a literal (a name, a call, an operator) makes the line unreadable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from recbench.data.sources.base import Progress
from recbench.data.sources.places import File
from recbench.data.sources.reading import LONGEST, Text, blocks, head_of, shown, whole_lines
from recbench.errors import Exit, RecbenchError

BOM = b"\xef\xbb\xbf"
LONGEST_RECORD = 1 << 24
TOKEN = re.compile(
    r"""[uU]?'((?:[^'\\]|\\.)*)'|[uU]?"((?:[^"\\]|\\.)*)"|\b(None|True|False)\b|([A-Za-z_]\w*|[()'"])""", re.DOTALL
)
ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)|([\"\x00-\x1f])", re.DOTALL)
PLAIN = {
    "n": "\\n",
    "t": "\\t",
    "r": "\\r",
    "b": "\\b",
    "f": "\\f",
    "a": "\\u0007",
    "v": "\\u000b",
    "\\": "\\\\",
    "'": "'",
    '"': '\\"',
    "\n": "",
}
WORDS = {"None": "null", "True": "true", "False": "false"}
EXPONENT = re.compile(r"[eE]\d+")
UNREADABLE = (ValueError, RecursionError)
"""What the JSON reader raises: syntax, bytes that are no text, nesting without end."""
OPENING = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}"]', re.DOTALL)

Batch = tuple[int, Text, bool]
"""Number of the first line (record, where records span lines), the lines, and whether the file ends with them."""


def batches(file: File, progress: Progress) -> Iterator[Batch]:
    """One record a line, whatever the file's own layout."""
    if spans_lines(head_of(file)):
        yield from _numbered(_documents(file, progress))
    else:
        yield from _numbered(whole_lines(file, progress))


def spans_lines(head: bytes) -> bool:
    """Is this one JSON array, or pretty-printed? Then a line is no record."""
    text = head.removeprefix(BOM).lstrip()
    first = text.partition(b"\n")[0].rstrip()
    return text.startswith(b"[") or first == b"{" or (text.startswith(b"{") and first.endswith(b","))


def _numbered(found: Iterator[Text]) -> Iterator[Batch]:
    number, held = 1, next(found, None)
    while held is not None:
        following = next(found, None)
        if number == 1:
            held = held._replace(lines=held.lines.removeprefix(BOM))
        yield number, held, following is None
        number += held.n
        held = following


def _documents(file: File, progress: Progress) -> Iterator[Text]:
    """Every outermost JSON object of a file on a line of its own: breaks inside it become carriage returns, as blank to JSON.

    Raises:
        RecbenchError: the last one has no end, or one is too long to be a record.
    """
    rest, n = b"", 0
    for block in blocks(file, progress):
        rest += block
        found, rest = _objects(rest)
        n += len(found)
        if len(rest) > LONGEST_RECORD:
            raise _endless(file, n, f"It has more than {LONGEST_RECORD:,} bytes.")
        if found:
            yield Text(b"\n".join(record.replace(b"\n", b"\r") for record in found), len(found))
    if rest.strip(b" \r\n\t,]"):
        raise _endless(file, n, f"The file ends in the middle of it: ...{shown(rest[-40:])}")


def _objects(text: bytes) -> tuple[list[bytes], bytes]:
    found: list[bytes] = []
    depth = begin = done = 0
    for token in OPENING.finditer(text):
        mark = token.group()
        if mark == b"{":
            begin = token.start() if depth == 0 else begin
            depth += 1
        elif mark == b'"':
            break  # a string that ends further on: nothing behind it can be told apart yet
        elif mark == b"}" and depth:
            depth -= 1
            if depth == 0:
                done = token.end()
                found.append(text[begin:done])
    return found, text[done:]


def _endless(file: File, n: int, why: str) -> RecbenchError:
    return RecbenchError(
        f"Record {n + 1:,} of {file} has no end.",
        why=f"{why} {n:,} whole records stand before it.",
        fix="The file was probably cut: get it again. One record a line is read fastest: jq -c",
        code=Exit.DATA,
    )


class UnreadableError(ValueError):
    """A line that holds no record. The text says why."""


def parse(line: bytes) -> dict[str, Any]:
    """The record on one line: JSON first, Python-dict text second.

    Raises:
        UnreadableError: it is neither, or holds something else than one record.
    """
    try:
        record = msgspec.json.decode(line)
    except UNREADABLE as problem:
        try:
            record = msgspec.json.decode(as_json(line.decode("utf-8")))
        except UNREADABLE:
            raise UnreadableError(str(problem)) from None
    if not isinstance(record, dict):
        raise UnreadableError(f"it holds a {type(record).__name__}, not one record")
    return record


def as_json(text: str) -> str:
    """Python-dict text as JSON text.

    Raises:
        UnreadableError: it holds what no literal has.
    """
    if len(text) > LONGEST:
        raise UnreadableError("it is too long")
    return TOKEN.sub(_token, text.strip())


def _token(match: re.Match[str]) -> str:
    single, double, word, other = match.groups()
    if word is not None:
        return WORDS[word]
    if other is not None:
        if EXPONENT.fullmatch(other) and match.start() and match.string[match.start() - 1].isdigit():
            return other  # the exponent of a number
        if other in "eE" and match.start() and match.string[match.start() - 1].isdigit():
            return other
        raise UnreadableError(f"{other!r} is no literal")
    content = single if single is not None else double
    return f'"{ESCAPE.sub(_escape, content)}"'


def _escape(match: re.Match[str]) -> str:
    escaped, raw = match.groups()
    if raw is not None:
        return json.dumps(raw)[1:-1]
    if escaped in PLAIN:
        return PLAIN[escaped]
    if escaped[0] == "u" and len(escaped) > 1:
        return f"\\{escaped}"  # also half a character: JSON joins the halves, as Python 2 wrote them
    return json.dumps(_character(escaped))[1:-1]


def _character(escaped: str) -> str:
    """What a numbered escape stands for. Python keeps the backslash of an escape it does not know."""
    if escaped[0] in "01234567":
        return chr(int(escaped, 8))
    if escaped[0] not in "xU" or len(escaped) == 1:
        return f"\\{escaped}"
    code = int(escaped[1:], 16)
    if code > 0x10FFFF:
        raise UnreadableError(f"\\{escaped} is no character")
    return chr(code)
