"""Small files in every raw format, written by hand, and what reading them gives."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from recbench.data.detect import open_source
from recbench.data.sources.bad import BadRows
from recbench.data.sources.base import Events
from recbench.errors import Exit, RecbenchError

U, V = "A2IBPI20UZIR0U", "A14VAT5EAX3D9S"
K, J = "0205616461", "B00000JBLH"
UK, VK = "AFSKPY37N3C43SOI5IEXEK5JSIYA", "AGKHLEW2SOWHNMFQIJGBECAF7INQ"
S = 1_393_545_600
MS = 1_547_589_356_557


def rows(*records: dict[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def old(user: str, item: str, time: object, rating: object = 5.0, **more: object) -> dict[str, object]:
    return {"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": time, **more}


def yelp(user: str, place: str, date: str) -> dict[str, object]:
    return {"review_id": "r", "user_id": user, "business_id": place, "stars": 5.0, "text": "x", "date": date}


REVIEWS_2014 = rows(old(U, K, S), old(V, K, S + 86_400), old(U, J, S + 86_400, 3.0))
REVIEWS_2018 = rows(*(old(u, i, t, verified=True, vote="2") for u, i, t in ((U, K, S), (V, K, S), (U, J, S + 1))))
REVIEWS_2023 = rows(
    *(
        {"rating": 5.0, "asin": "B00000000X", "parent_asin": i, "user_id": u, "timestamp": t, "verified_purchase": True}
        for u, i, t in ((UK, K, MS), (VK, K, MS), (UK, J, MS + 1))
    )
)
YELP = rows(
    yelp("u1", "b1", "2018-12-31 23:59:59"),
    yelp("u1", "b1", "2019-01-01 00:00:00"),
    yelp("u1", "b2", "2019-12-31 00:00:00"),
    yelp("u2", "b2", "2019-12-31 00:00:01"),
)
BUSINESSES = rows(
    {"business_id": "b1", "name": "Caf\u00e9 One", "categories": "Doctors, Traditional Chinese Medicine"},
    {"business_id": "b2", "name": "Two", "categories": None},
)
STEAM = "".join(
    f"{{u'username': {name}, u'hours': 0.1, u'product_id': u'{game}', u'date': u'2017-12-1{day}', "
    f"u'early_access': False, u'compensation': None, u'text': u'it\\'s \\u201cfun\\u201d \\xe9'}}\n"
    for name, game, day in (("u'Chaos Syren'", 725280, 7), ('u"O\'Neil"', 725280, 8), ("u'Chaos Syren'", 328100, 9))
)
RATINGS_DAT = "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978300760\n"
MOVIES_DAT = "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n661::Am\xe9lie (2001)::Animation|Children's\n"
U_DATA = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t1\t881250950\n"
INTER = 'user_id:token\titem_id:token\trating:float\ttimestamp:float\nu 1\ti"1\t5\t1e9\nu 1\ti2\t3\t1000000001\nu2\ti2\t3\t1\n'
SPLIT_INTER = "user_id:token\titem_id_list:token_seq\titem_id:token\n1\t7\t8\n1\t7 8\t9\n2\t9\t7\n"


def put(home: Path, name: str, content: str | bytes) -> Path:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") and not data.startswith(b"\x1f\x8b") else data)
    return path


def zipped(home: Path, name: str, **inside: str | bytes) -> Path:
    path = home / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner, content in inside.items():
            archive.writestr(inner, content)
    return path


def tarred(names: dict[str, str | bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]  # any mode of writing
        for name, content in names.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read(path: Path, source_format: str | None = None, bad: BadRows | None = None, **options: object) -> Events:
    _, source = open_source(path, source_format, options, bad)
    return source.read(lambda _: None)


def triples(events: Events) -> list[tuple[str, str, int | None]]:
    """(user, item, time) of each event, in order."""
    times = [None] * len(events) if events.timestamp is None else events.timestamp.tolist()
    return [
        (events.user_ids[u], events.item_ids[i], t) for u, i, t in zip(events.user, events.item, times, strict=True)
    ]


def refused(
    path: Path, source_format: str | None = None, bad: BadRows | None = None, **options: object
) -> RecbenchError:
    with pytest.raises(RecbenchError) as caught:
        read(path, source_format, bad, **options)
    error = caught.value
    assert error.code in (Exit.DATA, Exit.USAGE)
    assert error.what
    assert error.why
    assert error.fix
    return error
