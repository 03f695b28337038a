"""Boxes on the command line: each word and each line is the path of a picture."""

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import QkvError, UsageError
from .each import answered, tell
from .out import emit, result, say
from .parse import Args
from .pictures import TOGETHER
from .use import flat, open_model, texts

if TYPE_CHECKING:
    from ..model import Model


def detect(args: Args) -> int:
    """A line for each thing: path, label, probability, x0, y0, x1, y1; with --json a line for each picture.

    Of several pictures, one that cannot be used is told and the others go on; the exit code is that of the last error."""
    words = (w for w in chain.from_iterable(texts(args.pictures, verb="detect")) if w.strip())
    drawn: Iterator[Path] | None = None
    if args.o is not None:  # nothing is read or drawn before every drawing has a place of its own
        every = list(words)
        words, drawn = (w for w in every), iter(drawings(args.o, every))
    together = list(islice(words, TOGETHER))
    model = open_model(args.model, "detect")
    only, code = len(together) == 1, 0
    while together:
        for path, answer in answered(
            together, lambda paths: model.detect(paths, threshold=args.threshold)
        ):
            to = None if drawn is None else next(drawn)
            if isinstance(answer, QkvError):
                if only:
                    raise answer
                code = answer.exit_code
                tell(path, answer, args.json)
                continue
            if to is not None:
                draw(model, answer, to)
            show(path, answer, args.json)
        sys.stdout.flush()
        together = list(islice(words, TOGETHER))
    return code


def show(path: str, answer: Any, json: bool) -> None:
    if json:
        emit(answer)
        return
    for d in answer:
        box = "\t".join(f"{v:.1f}" for v in d.box)
        result(f"{flat(path)}\t{flat(d.label)}\t{d.score:.4f}\t{box}")


def drawings(asked: str, pictures: Sequence[str]) -> list[Path]:
    """Where each picture is drawn: the file asked for, or NAME.png in that folder; a second x.png is x-2.png.

    Raises UsageError for a file that is no .png, one file for several pictures, and rather than write over a picture."""
    path = Path(asked)
    if path.is_dir() or len(pictures) != 1:
        if path.suffix and not path.is_dir():
            raise UsageError(
                f"one file, {path.name}, for several pictures", place="qkv detect", fix="-o folder"
            )
        made = _in_folder(path, pictures)
    elif path.suffix.lower() != ".png":
        raise UsageError(
            f"{path.name}: boxes are drawn as .png", place="qkv detect", fix="-o boxes.png"
        )
    else:
        made = [path]
    given = {file for p in pictures if (file := _file(p)) is not None}
    for to in made:
        if _file(to) in given:
            raise UsageError(
                f"the boxes would be drawn over the picture {to}",
                place="qkv detect",
                fix="-o another-folder, or another name",
            )
    return made


def _in_folder(folder: Path, pictures: Sequence[str]) -> list[Path]:
    """Raises UsageError for a file that lies beside a picture already: nobody knows whose it is."""
    taken: set[str] = set()
    made = []
    for picture in pictures:
        stem = name = Path(picture).stem
        n = 1
        while name.casefold() in taken:  # some file systems do not tell A.png from a.png
            n += 1
            name = f"{stem}-{n}"
        taken.add(name.casefold())
        made.append(folder / f"{name}.png")
    beside = {os.path.realpath(Path(p).parent) for p in pictures}
    if os.path.realpath(folder) in beside and (there := [p for p in made if p.exists()]):
        raise UsageError(
            f"{there[0]} lies beside the pictures already",
            place="qkv detect",
            fix="draw into a folder of its own: -o boxes",
        )
    return made


def _file(path: str | Path) -> tuple[int, int] | None:
    """Which file it is, whatever it is called; None: there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def draw(model: "Model", answer: Any, to: Path) -> None:
    """The picture with its boxes, as PNG."""
    from ..look.pictures import Thing, boxes_png
    from ..pictures import read
    from ..weights import store

    _, pixels = read(answer.source, int(model.net.channels))  # type: ignore[arg-type]
    things = [Thing(f"{d.label} {d.score:.2f}", {}, d.box) for d in answer]
    store.write_file(to, boxes_png(pixels, things))
    say(str(to))
