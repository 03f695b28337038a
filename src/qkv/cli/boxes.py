"""Boxes on the command line: each word and each line is the path of a picture."""

import sys
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import QkvError, UsageError
from ..messages import language
from .out import emit, here, one_line, result, say
from .parse import Args
from .pictures import TOGETHER, answered
from .use import flat, open_model, texts

if TYPE_CHECKING:
    from ..model import Model


def detect(args: Args) -> int:
    """A line for each thing: path, label, probability, x0, y0, x1, y1; with --json a line for each picture.

    Of several pictures, one that cannot be used is told and the others go on; the exit code is that of the last error."""
    words = (w for w in chain.from_iterable(texts(args.pictures)) if w.strip())
    together = list(islice(words, TOGETHER))
    model = open_model(args.model, "detect")
    only, code = len(together) == 1, 0
    drawn = drawings(args.o, only)
    while together:
        for path, answer in answered(
            together, lambda paths: model.detect(paths, threshold=args.threshold)
        ):
            if isinstance(answer, QkvError):
                if only:
                    raise answer
                code = answer.exit_code
                say(one_line(here(answer.line(language())), 4096))
            else:
                draw(model, answer, drawn, only)
            show(path, answer, args.json)
        sys.stdout.flush()
        together = list(islice(words, TOGETHER))
    return code


def show(path: str, answer: Any, json: bool) -> None:
    if json:
        failed = isinstance(answer, QkvError)
        emit({"source": path, "error": answer.to_dict()} if failed else answer)
    elif not isinstance(answer, QkvError):
        for d in answer:
            box = "\t".join(f"{v:.1f}" for v in d.box)
            result(f"{flat(path)}\t{flat(d.label)}\t{d.score:.4f}\t{box}")


def drawings(asked: str | None, only: bool) -> Path | None:
    """Where to draw.  Raises UsageError for a file that is no .png, or one file for several pictures."""
    if asked is None:
        return None
    path = Path(asked)
    if only and path.suffix.lower() != ".png" and not path.is_dir():
        raise UsageError(
            f"{path.name}: boxes are drawn as .png", place="qkv detect", fix="-o boxes.png"
        )
    if not only and path.suffix:
        raise UsageError(
            f"one file, {path.name}, for several pictures", place="qkv detect", fix="-o folder"
        )
    return path


def draw(model: "Model", answer: Any, to: Path | None, only: bool) -> None:
    """The picture with its boxes, as PNG."""
    if to is None:
        return
    from ..look.pictures import Thing, boxes_png
    from ..pictures import read
    from ..weights import store

    _, pixels = read(answer.source, int(model.net.channels))  # type: ignore[arg-type]
    things = [Thing(f"{d.label} {d.score:.2f}", {}, d.box) for d in answer]
    path = to if only and not to.is_dir() else to / f"{Path(answer.source).stem}.png"
    store.write_file(path, boxes_png(pixels, things))
    say(str(path))
