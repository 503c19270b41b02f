"""gzip, zstandard, zip and tar as streams: what is cut, damaged, locked, a bomb or a trap is refused by its name."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from recbench.data.sources import archives, packing, reading
from recbench.data.sources.places import Member
from recbench.data.sources.reading import blocks, lines
from recbench.errors import RecbenchError
from tests.data.sources.files import REVIEWS_2014, old, put, read, refused, rows, tarred, triples, zipped

zstandard = pytest.importorskip("zstandard")
LONG = rows(*(old(f"A{n:013d}", f"B{n * 7919 % 10_007:09d}", 86_400 * n) for n in range(3000)))


def packed(kind: str, content: str = LONG) -> bytes:
    data = content.encode()
    if kind == "gz":
        return gzip.compress(data)
    if kind == "zst":
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("in/reviews.json", data)
        return buffer.getvalue()
    if kind == "tar.zst":
        return zstandard.compress(tarred({"in/reviews.json": data}))
    return tarred({"in/reviews.json": data}, {"tar": "w", "tar.gz": "w:gz"}[kind])


KINDS = ("gz", "zst", "zip", "tar", "tar.gz", "tar.zst")


@pytest.mark.parametrize("kind", KINDS)
def test_every_packing_gives_the_same_events(kind: str, tmp_path: Path) -> None:
    plain = triples(read(put(tmp_path, "plain", LONG)))
    assert triples(read(put(tmp_path, f"x.{kind}", packed(kind)))) == plain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_file_is_refused_wherever_it_is_cut(kind: str, share: float, tmp_path: Path) -> None:
    data = packed(kind)
    error = refused(put(tmp_path, f"x.{kind}", data[: int(share * len(data))]))
    assert "cut off" in error.what or "damaged" in error.what
    assert "Half a file would be another dataset" in error.why
    assert f"x.{kind}" in error.fix


@pytest.mark.parametrize(("kind", "check"), [("gz", "gzip -t"), ("zst", "zstd -t"), ("zip", "unzip -t")])
def test_a_checksum_that_does_not_fit_is_found(kind: str, check: str, tmp_path: Path) -> None:
    data = bytearray(packed(kind))
    place = {"gz": -8, "zst": -2}.get(kind) or data.index(b"PK\x01\x02") + 16
    data[place] ^= 0xFF
    if kind == "zip":
        data[14] = data[place]  # of the local header, which must agree with the directory
    error = refused(put(tmp_path, f"x.{kind}", bytes(data)), "amazon2014-reviews")
    assert "is damaged" in error.what
    assert check in error.fix


def test_a_cut_stream_names_the_last_whole_line(tmp_path: Path) -> None:
    data = zstandard.compress(LONG.encode())
    error = refused(put(tmp_path, "x.zst", data[:-4]), "amazon2014-reviews")
    assert "its zstd stream has no end" in error.what
    assert "readable up to line" in error.why


def test_members_behind_one_another_are_all_read(tmp_path: Path) -> None:
    for pack in (gzip.compress, zstandard.compress):
        data = pack(REVIEWS_2014.encode()) + pack(REVIEWS_2014.encode())
        assert len(read(put(tmp_path, "x", data))) == 6


@pytest.mark.parametrize("name", ["../../etc/reviews.json", "/etc/reviews.json", "..\\reviews.json", "C:/reviews.json"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leads_outside_is_a_trap_and_nothing_is_written(kind: str, name: str, tmp_path: Path) -> None:
    if kind == "zip":
        path = zipped(tmp_path, "x.zip", **{name: REVIEWS_2014})
    else:
        path = put(tmp_path, "x.tar", tarred({name: REVIEWS_2014}))
    before = sorted(tmp_path.rglob("*"))
    error = refused(path)
    assert "leads outside of the archive" in error.why
    assert sorted(tmp_path.rglob("*")) == before


def test_links_and_devices_in_a_tar_are_no_files(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "reviews.json"), (tarfile.LNKTYPE, "b"), (tarfile.CHRTYPE, "c")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert "Inside are: no files at all" in refused(put(tmp_path, "x.tar", buffer.getvalue())).why


@pytest.mark.parametrize("kind", ["gz", "zst", "zip", "tar.gz", "tar.zst"])
def test_a_bomb_is_stopped_by_its_ratio(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BOMB_FROM", 1 << 20)
    path = put(tmp_path, f"x.{kind}", packed(kind, "\n" * (4 << 20)))
    error = refused(path, "amazon2014-reviews")
    assert "unpacks to more than any dataset would" in error.what
    assert "bytes come out of its first" in error.why


def test_a_file_larger_than_any_dataset_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGEST", 100_000)
    assert "More than 100,000 bytes" in refused(put(tmp_path, "x.gz", LONG), "amazon2014-reviews").why


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST", 1 << 20)
    path = put(tmp_path, "x", b"a\n" + b"x" * (4 << 20))
    with pytest.raises(RecbenchError, match=r"Line 2 of .* does not end"):
        list(lines(path, lambda _: None))


def test_an_archive_with_endless_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST", 3)
    many: dict[str, str | bytes] = {f"{n}.json": "{}" for n in range(4)}
    for path in (zipped(tmp_path, "x.zip", **many), put(tmp_path, "x.tar", tarred(many))):
        assert "lists more than 3 files" in refused(path).what


def test_a_locked_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(packed("zip"))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    assert "needs a password" in refused(put(tmp_path, "x.zip", bytes(data))).what


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for _ in range(2):
            info = tarfile.TarInfo("reviews.json")
            archive.addfile(info)
    assert "'reviews.json' twice" in refused(put(tmp_path, "x.tar", buffer.getvalue())).what


def test_an_archive_of_which_no_file_is_known_lists_what_is_inside(tmp_path: Path) -> None:
    error = refused(zipped(tmp_path, "x.zip", **{"a.txt": "x", "b.txt": "y"}))
    assert "which file in it holds the events is not known" in error.what
    assert "a.txt, b.txt" in error.why


def test_parquet_inside_an_archive_is_refused(tmp_path: Path) -> None:
    assert "Parquet inside an archive" in refused(zipped(tmp_path, "x.zip", **{"a.parquet": b"PAR1xxxx"})).what


def test_without_the_library_zstandard_is_refused_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    error = refused(put(tmp_path, "x.zst", packed("zst")), "amazon2014-reviews")
    assert "recbench[zstd]" in error.fix


def test_a_member_is_named_with_its_archive(tmp_path: Path) -> None:
    path = zipped(tmp_path, "x.zip", **{"in/reviews.json": REVIEWS_2014 + "{}\n"})
    assert f"{path}:in/reviews.json" in refused(path).what
    assert str(Member(Path("a.zip"), "b")) == "a.zip:b"


def test_progress_counts_the_bytes_of_the_disk(tmp_path: Path) -> None:
    for kind in KINDS:
        path = put(tmp_path, f"x.{kind}", packed(kind))
        told: list[int] = []
        held = [path] if kind in ("gz", "zst") else archives.members(path)
        list(blocks(held[0], told.append))
        assert 0.5 * path.stat().st_size < sum(told) < 4 * path.stat().st_size + 100_000
