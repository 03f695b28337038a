"""Where pictures come from: a folder of class folders, a tar archive of the same, idx pairs, boxes in COCO's JSON.

Every file is used or counted in the SkipReport under its name and its number in the source."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from ...errors import ConfigError, DataError, MissingError
from ..lines import open_file
from ..report import SkipReport, counted
from .decode import MAX_BYTES, MAX_PIXELS, MOST_PIXELS, SUFFIXES, Bytes, Unusable, decode
from .idx import read_idx
from .tar import members, shown

ARCHIVES = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class ImageSource:
    """One set of pictures.

    folder   path/<class>/….png: the class is the first folder below the path
    tar      the same names in an archive (.tar, .tar.gz, .tgz)
    idx      an idx3 file of grey pictures (.gz or not) and the idx1 file of its `labels`
    coco     a COCO file of boxes with its folder of `images`, or a tar archive that holds annotations.json
    builtin  builtin:shapes/train?n=4000&size=96: pictures with boxes, made here"""

    path: str
    format: Literal["auto", "folder", "tar", "idx", "coco"] = "auto"
    labels: str = (
        ""  # idx: the file of labels; empty: as …-images-idx3-ubyte names …-labels-idx1-ubyte
    )
    images: str = ""  # coco: the folder of the pictures; empty: the file's own folder
    max_pixels: int = MAX_PIXELS  # a picture of more is skipped before it is unpacked

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("no path", fix='path = "pictures/train"', code="QKV-015")
        if not 1 <= self.max_pixels <= MOST_PIXELS:
            raise ConfigError(
                f"max_pixels must be 1 … {MOST_PIXELS:,} (got {self.max_pixels})",
                fix="leave it out",
            )
        for name, kinds in (("labels", ("idx",)), ("images", ("coco",))):
            if getattr(self, name) and self.kind not in kinds:
                raise ConfigError(
                    f"a {self.kind} source has no {name}", fix="remove it", code="QKV-013"
                )
        if self.kind == "idx" and not self.labels_path:
            raise ConfigError(
                f"{self.path}: where are its labels?",
                fix='labels = "train-labels-idx1-ubyte.gz"',
                code="QKV-015",
            )

    @property
    def kind(self) -> str:
        """The format that reads it: folder, tar, idx, coco or builtin."""
        if self.path.startswith("builtin:"):
            return "builtin"
        if self.format != "auto":
            return self.format
        name = Path(self.path).name.lower()
        if name.endswith(ARCHIVES):
            return "tar"
        if "idx3" in name or name.removesuffix(".gz").endswith(".idx"):
            return "idx"
        return "coco" if name.endswith(".json") else "folder"

    @property
    def labels_path(self) -> str:
        if self.labels or self.kind != "idx":
            return self.labels
        folder, name = os.path.split(self.path)
        other = name.replace("images", "labels").replace("idx3", "idx1")
        return os.path.join(folder, other) if other != name else ""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files and folders this source reads."""
        if self.kind == "builtin":
            return ()
        return tuple(p for p in (self.path, self.labels_path, self.images) if p)


class Blob(NamedTuple):
    """Where the bytes of a picture are: in memory, or `size` bytes at `offset` of a file."""

    path: str
    offset: int = 0
    size: int = -1  # -1: to its end
    raw: bytes | None = None

    def read(self) -> bytes:
        """Raises MissingError QKV-020 where the file is gone."""
        if self.raw is not None:
            return self.raw
        with open_file(self.path) as file:
            if self.offset:
                file.seek(self.offset)
            return file.read(MAX_BYTES + 1 if self.size < 0 else self.size)


class Found(NamedTuple):
    """A picture that decodes: its name and number for messages, its class, its bytes, and where they came from."""

    name: str
    number: int
    label: str
    pixels: Bytes
    blob: Blob | None  # None: its file holds many

    @property
    def place(self) -> str:
        return f"{self.name}:{self.number}"


def read_pictures(
    source: ImageSource, report: SkipReport, channels: int | None = None
) -> Iterator[Found]:
    """The usable labelled pictures of a source, streamed; None: grey where the files are grey (idx), else colour.

    Raises MissingError QKV-020; DataError QKV-031 (labels and pictures differ in number), 032 (nothing usable),
    033 and 036 (damaged files)."""
    if source.kind in ("coco", "builtin"):
        raise ConfigError(
            f"{source.path} holds boxes, and classes of whole pictures are wanted",
            fix='give a folder of class folders, or [objective] kind = "detect"',
            code="QKV-013",
        )
    used, before = report.used, dict(report.skipped)
    if source.kind == "idx":
        yield from _idx(source, report, channels or 1)
    else:
        yield from _files(source, report, channels or 3)
    if report.used == used:
        said = counted(report.since(before))
        raise DataError(
            f"no usable picture ({said or 'nothing is there'})",
            place=source.path,
            fix="it should hold a folder for each class: cat/1.png, dog/2.png, …",
            code="QKV-032",
        )


# -- folders and archives ------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A file before it is decoded; reason: why it will not be."""

    name: str  # relative to the source
    number: int
    blob: Blob
    raw: bytes | None = None  # its bytes, where they are at hand already
    reason: str = ""


def entries(source: ImageSource) -> Iterator[Entry]:
    """Every file of a folder (sorted) or archive (as it lies there), with its bytes in reach."""
    if source.kind == "tar":
        packed = is_gzip(source.path)  # then nothing can be found again by its offset
        for m in members(source.path):
            blob = Blob(source.path, m.offset, len(m.raw), m.raw if packed else None)
            yield Entry(m.name, m.number, blob, m.raw, m.reason)
        return
    root = Path(source.path)
    if not root.is_dir():
        near = "is a file" if root.exists() else "is not there"
        raise MissingError(
            f"{source.path} {near}",
            fix="give a folder of class folders, a .tar, or an idx3 file",
            place=source.path,
        )
    for number, path in enumerate(sorted(files_below(root)), 1):
        # a pipe would be waited for; a broken link is told when it is opened
        odd = path.exists() and not path.is_file()
        reason = "link or device" if odd else ""
        name = shown(path.relative_to(root).as_posix())
        yield Entry(name, number, Blob(str(path)), None, reason)


def files_below(root: Path) -> Iterator[Path]:
    """Every file below a folder, and every link to a folder, which is not followed."""
    for folder, folders, names in os.walk(root):
        below = (Path(folder, name) for name in folders)
        yield from (path for path in below if path.is_symlink())
        yield from (Path(folder, name) for name in names)


def composed(name: str) -> str:
    """Letters with their marks as one character: macOS writes file names with the two apart (NFD), others do not (NFC)."""
    return unicodedata.normalize("NFC", name)


def is_gzip(path: str) -> bool:
    with open_file(path) as file:
        return file.read(2) == b"\x1f\x8b"


def picture(entry: Entry, channels: int, most: int) -> Bytes:
    """The pixels of an entry.  Raises Unusable."""
    if entry.reason:
        raise Unusable(entry.reason)
    if not entry.name.lower().endswith(SUFFIXES):
        raise Unusable("unknown kind of file")
    try:
        raw = entry.blob.read() if entry.raw is None else entry.raw
    except (MissingError, OSError) as e:
        raise Unusable("cannot be opened", str(e)) from None
    return decode(raw, channels, most)


def _files(source: ImageSource, report: SkipReport, channels: int) -> Iterator[Found]:
    seen: set[str] = set()
    for entry in entries(source):
        shown = f"{source.path}/{entry.name}"
        label, _, rest = composed(entry.name).partition("/")
        try:
            if not entry.reason and not rest:
                raise Unusable("no class folder")
            if entry.name in seen:
                raise Unusable("same name again")
            pixels = picture(entry, channels, source.max_pixels)
        except Unusable as e:
            report.skip(shown, entry.number, e.reason)
            continue
        seen.add(entry.name)
        report.use()
        yield Found(shown, entry.number, label, pixels, entry.blob)


def _idx(source: ImageSource, report: SkipReport, channels: int) -> Iterator[Found]:
    pictures, labels = read_idx(source.path), read_idx(source.labels_path)
    if pictures.ndim != 3 or labels.ndim != 1:
        raise DataError(
            f"{pictures.ndim} and {labels.ndim} axes, 3 (pictures) and 1 (labels) are wanted",
            place=source.path,
            fix="give an idx3 file, and its idx1 file as labels",
        )
    if len(pictures) != len(labels):
        raise DataError(
            f"{len(pictures):,} pictures and {len(labels):,} labels",
            place=source.labels_path,
            fix="fetch both files again",
            code="QKV-031",
        )
    for number, (pixels, label) in enumerate(zip(pictures, labels, strict=True), 1):
        if not pixels.size:
            report.skip(source.path, number, "empty picture")
            continue
        report.use()
        made = pixels[..., None] if channels == 1 else pixels[..., None].repeat(channels, -1)
        yield Found(source.path, number, str(label), made, None)


def single(path: str | os.PathLike[str], channels: int, most: int = MAX_PIXELS) -> Bytes:
    """The pixels of one file, whatever its name.  Raises MissingError QKV-020, DataError QKV-037, QKV-038."""
    there = Blob(os.fspath(path))
    try:
        return decode(there.read(), channels, most)
    except Unusable as e:
        raise e.error(there.path) from None
    except OSError as e:
        raise MissingError(
            f"cannot be read: {e.strerror}", place=there.path, fix="check the file"
        ) from None
