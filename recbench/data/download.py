"""A dataset's file on this machine, whole and the one that was meant: mirrors in turn, checks, and the lock.

The file stands in ``<home>/.downloads/<dataset>/NAME``, its hash beside it in ``NAME.lock.json``. Until every check
has passed it is ``NAME.part``, so a download that goes wrong leaves a good file alone and can be continued. Where no
sha256 is published, the first download is trusted and its hash kept: a file that differs later is refused until the
user accepts it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from recbench.data.catalog import DatasetCard
from recbench.data.transfer import BrokenOffError, MirrorError, Part, Progress, RefusedError, StaleError, pull
from recbench.errors import Exit, RecbenchError
from recbench.files import file_hash, sha256, write_text

FOLDER = ".downloads"
GAIN = 1 << 20
"""Bytes of progress after which a mirror that breaks off is as good as new."""
MAGIC = {".gz": (b"\x1f\x8b", "gzip"), ".zip": (b"PK", "zip"), ".parquet": (b"PAR1", "Parquet")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait, and how often to ask again."""

    attempts: int = 3
    """Failures in a row, without progress, after which the next mirror is tried."""
    first: float = 1.0
    """Seconds before the second attempt; doubled every time."""
    longest: float = 60.0
    """Seconds at most, also where a server asks for more."""
    timeout: float = 20.0
    """Seconds to wait for a connection, and for each block of it."""
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What a downloaded file was when it was trusted."""

    sha256: str
    bytes: int
    url: str

    @staticmethod
    def path(target: Path) -> Path:
        """Where the lock of a file stands."""
        return target.with_name(f"{target.name}.lock.json")

    def write(self, target: Path) -> None:
        """Write the lock whole or not at all."""
        write_text(self.path(target), json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def of(cls, target: Path) -> Lock | None:
        """The lock of a file, None if it was never downloaded.

        Raises:
            RecbenchError: there is one, but it cannot be read.
        """
        path = cls.path(target)
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RecbenchError(
                f"The lock file {path} cannot be read.",
                why=f"{error}.",
                fix=f"To trust the next download anew, remove it: rm '{path}'",
                code=Exit.DATA,
            ) from error


class ChangedError(RefusedError):
    """The file is sound, but it is not the one that was downloaded first."""

    def __init__(self, before: str, now: str) -> None:
        super().__init__(f"its sha256 is {now}, at the first download it was {before}")
        self.before = before
        self.now = now


def fetch(
    card: DatasetCard,
    home: Path,
    progress: Progress = lambda _done, _total: None,
    *,
    what: str = "",
    option: str = "--source PATH",
    accept_changed: bool = False,
    say: Callable[[str], None] = lambda _line: None,
    patience: Patience | None = None,
) -> Path:
    """The checked file of ``card``, downloaded if it is not there yet.

    Args:
        card: from the catalogue.
        home: where datasets live; the file goes to ``<home>/.downloads/<name>/``.
        progress: told the bytes there are so far and the total, if the server says.
        what: is fetched, for messages; left out: the dataset.
        option: of ``recbench prepare``, that names a file at hand instead.
        accept_changed: take a file that differs from the one downloaded first, and lock that.
        say: told what a user should know: a mirror that failed, a checksum nobody confirmed that differs.
        patience: time-outs and retries.

    Raises:
        RecbenchError: every mirror failed, each with its reason; or the disk is full.
    """
    if not card.urls:
        raise RecbenchError(
            f"Dataset {card.name} cannot be downloaded.",
            why=card.how_to_get or "Its card lists no address.",
            fix=f"recbench prepare {card.name} --source PATH",
            code=Exit.DATA,
        )
    target = home / FOLDER / card.name / Path(unquote(urlsplit(card.urls[0]).path)).name
    names = _Names(what or f"Dataset {card.name}", option)
    job = _Fetch(card, target, names, accept_changed, progress, say, patience or Patience())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if job.on_hand():
            return target
        with _alone(target, say) as waited:
            return target if waited and job.on_hand() else job.download()
    except OSError as error:
        raise RecbenchError(
            f"The download of {card.name} cannot be kept in {target.parent}.",
            why=f"{error.strerror or error}.",
            fix="Free some space or mend the permissions, then say the same again: what came so far is continued.",
            code=Exit.DATA,
        ) from error


def fetch_metadata(
    card: DatasetCard,
    home: Path,
    progress: Progress = lambda _done, _total: None,
    *,
    accept_changed: bool = False,
    say: Callable[[str], None] = lambda _line: None,
    patience: Patience | None = None,
) -> Path | None:
    """The checked file that describes the items of ``card``, as :func:`fetch` does it; None where it has no address.

    Raises:
        RecbenchError: as for the events.
    """
    if not card.metadata_urls:
        return None
    described = replace(
        card, urls=card.metadata_urls, sha256=card.metadata_sha256, bytes=card.metadata_bytes, md5=None, how_to_get=""
    )
    return fetch(
        described,
        home,
        progress,
        what=f"The item metadata of {card.name}",
        option="--metadata PATH",
        accept_changed=accept_changed,
        say=say,
        patience=patience,
    )


@contextlib.contextmanager
def _alone(target: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Only one process fetches into a folder: two would write into one part. True where another one had to be waited for."""
    with target.parent.with_name(f".{target.parent.name}.lock").open("w") as lock:
        waited = False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            say(f"{target.parent} is being filled by another process; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield waited


@dataclass(frozen=True, slots=True)
class _Names:
    """How messages call what is fetched, and the option that takes a file at hand."""

    what: str
    option: str


@dataclass(frozen=True, slots=True)
class _Fetch:
    """One file being fetched."""

    card: DatasetCard
    target: Path
    names: _Names
    accept_changed: bool
    progress: Progress
    say: Callable[[str], None]
    patience: Patience

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def published(self) -> str | None:
        """The sha256 that must hold, because its publisher says so."""
        return self.card.sha256 if self.card.sha256_confirmed else None

    def on_hand(self) -> bool:
        """Is the file there, and still good? One without a lock was put there by hand: it is checked and locked."""
        if not self.target.exists():
            return False
        try:
            lock = Lock.of(self.target)
            if lock is None:
                self._sound(self.target)
            found = self._meant(self.target, lock)
        except RefusedError as error:
            self.say(f"{self.target} is downloaded anew: {error}.")
            return False
        if lock is None:
            found.write(self.target)
        return True

    def download(self) -> Path:
        """The file from the first mirror that gives it.

        Raises:
            RecbenchError: none does.
        """
        failures: list[tuple[str, MirrorError]] = []
        for url in self.card.urls:
            try:
                self._from(url)
            except MirrorError as error:
                failures.append((url, error))
                self.say(f"{url}: {error}.")
            else:
                return self.target
        raise self._failed(failures)

    def _from(self, url: str) -> None:
        """Download from one mirror, again and again as long as that may help."""
        failures, best = 0, Part.at(self.part).size
        while True:
            try:
                continued = pull(
                    url, self.part, timeout=self.patience.timeout, refuse=self._refuse, progress=self.progress
                )
                self._finish(url, continued)
            except BrokenOffError as error:
                size = Part.at(self.part).size
                failures = 1 if size >= best + GAIN else failures + 1
                best = max(best, size)
                if failures >= self.patience.attempts:
                    raise
                backoff = self.patience.first * 2 ** (failures - 1)
                pause = min(backoff if error.wait is None else error.wait, self.patience.longest)
                self.say(f"{url}: {error}; trying again in {pause:.0f} s.")
                self.patience.sleep(pause)
            else:
                return

    def _refuse(self, head: bytes, total: int | None) -> None:
        """Refuse from the first bytes what cannot be the file, so that it never takes the place of a good part."""
        if complaint := _wrong_kind(self.target.name, head):
            raise RefusedError(complaint)
        if total is not None and self.card.sha256_confirmed and self.card.bytes not in {None, total}:
            raise RefusedError(f"it offers {total:,} bytes, published are {self.card.bytes:,}")

    def _finish(self, url: str, continued: bool) -> None:
        """Check the complete part, lock its hash, and let it take its place."""
        part = Part.at(self.part)
        try:
            self._sound(self.part)
            lock = self._meant(self.part, None if self.accept_changed else Lock.of(self.target), url)
        except ChangedError:
            raise  # the part stays: accepting it should not mean fetching it again
        except RefusedError as error:
            part.drop()
            if continued:
                raise StaleError(f"{error}, perhaps because it came in pieces") from error
            raise
        lock.write(self.target)  # before the file: should this end in between, the file is fetched again and fits
        with self.part.open("rb+") as handle:
            os.fsync(handle.fileno())
        self.part.replace(self.target)
        part.drop()

    def _sound(self, path: Path) -> None:
        """Refuse a file that is damaged or of another kind than its name says."""
        with path.open("rb") as handle:
            head = handle.read(1024)
        if complaint := _wrong_kind(self.target.name, head) or _damage(self.target.name, path):
            raise RefusedError(complaint)

    def _meant(self, path: Path, lock: Lock | None, url: str = "") -> Lock:
        """The lock of a file that is the one meant: as published, else as downloaded first."""
        size, digest = path.stat().st_size, sha256(path)
        if self.card.md5 is not None and (found := file_hash(path, "md5")) != self.card.md5:
            raise RefusedError(f"its md5 is {found}, published is {self.card.md5}")
        if self.published is not None and digest != self.published:
            raise RefusedError(f"its sha256 is {digest}, published is {self.published}")
        if self.published is None and lock is not None and digest != lock.sha256:
            raise ChangedError(lock.sha256, digest)
        if self.card.bytes not in {None, size}:
            if self.card.sha256_confirmed:
                raise RefusedError(f"it has {size:,} bytes, published are {self.card.bytes:,}")
            self.say(f"{self.target.name} has {size:,} bytes, one unconfirmed source says {self.card.bytes:,}.")
        if self.card.sha256 not in {None, digest}:
            self.say(
                f"{self.target.name} has sha256 {digest}, one unconfirmed source says {self.card.sha256}. "
                "It is used; compare the counts of the prepared data with the published ones."
            )
        return Lock(sha256=digest, bytes=size, url=url or (lock.url if lock else ""))

    def _failed(self, failures: list[tuple[str, MirrorError]]) -> RecbenchError:
        """One error for all mirrors, each with its reason."""
        name, why = self.card.name, "; ".join(f"{url}: {error}" for url, error in failures)
        if any(isinstance(error, ChangedError) for _, error in failures):
            return RecbenchError(
                f"{self.target.name} is no longer the file that was downloaded first.",
                why=f"{why}.",
                fix=f"To take the new one: recbench prepare {name} --accept-changed. "
                "Runs on the old data cannot be compared with runs on it.",
                code=Exit.DATA,
            )
        kept = " What came so far is kept and continued next time." if Part.at(self.part).size else ""
        return RecbenchError(
            f"{self.names.what} could not be downloaded.",
            why=f"{why}.{kept}",
            fix=" ".join(
                filter(None, [f"With the file at hand: recbench prepare {name} {self.names.option}", self._where()])
            ),
            code=Exit.DATA,
        )

    def _where(self) -> str:
        return f"({self.card.how_to_get})" if self.card.how_to_get else ""


def _wrong_kind(name: str, head: bytes) -> str | None:
    """Why a file that begins with ``head`` cannot be ``name``, or None. A web page instead of the file is common."""
    if not head:
        return "it is empty"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "it is a web page, not the file"
    magic, kind = MAGIC.get(Path(name).suffix.lower(), (b"", ""))
    return None if head.startswith(magic) else f"it does not begin like a {kind} file"


def _damage(name: str, path: Path) -> str | None:
    """What is wrong inside a packed file, or None. gzip and zip are read to the end of their last member, CRC and size too."""
    suffix = Path(name).suffix.lower()
    if suffix == ".zip":
        return _zip_damage(path)
    if suffix != ".gz":
        return None
    try:
        with gzip.open(path) as handle:
            while handle.read(1 << 20):
                pass
    except EOFError:
        return "the gzip file is cut off"
    except (gzip.BadGzipFile, zlib.error) as error:
        return f"the gzip file is damaged ({error})"
    return None


def _zip_damage(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as packed:
            bad = packed.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return "the zip archive is cut off or damaged"
    except (NotImplementedError, RuntimeError):
        return None  # sound, as far as one can tell, but locked or packed otherwise: whoever reads it says so
    return None if bad is None else f"{bad} in the zip archive is damaged"
