"""Verbs that look inside: look, doctor."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LawError, UsageError
from ..messages import t
from .out import colours, emit, result, say, table
from .parse import Args
from .use import flat, open_model

if TYPE_CHECKING:
    from ..model import Model, Translation


# ---- look


@dataclass(frozen=True)
class Seen:
    """What was looked at: a page of views, one picture, and what is printed."""

    title: str
    views: Sequence[Any]
    png: Callable[[Path], bytes]  # of the file it is for, which an error names
    told: dict[str, Any]
    lines: Sequence[str] = ()

    def write(self, paths: Sequence[Path]) -> None:
        from ..look.page import page
        from ..weights import store

        for path in paths:
            png = path.suffix.lower() == ".png"
            store.write_file(path, self.png(path) if png else page(self.title, self.views).encode())


def look(args: Args) -> None:
    """Draw where a model looked: translating or reading a text, at a picture, for things in one.

    Raises UsageError for an unknown kind of file or a model without attention."""
    paths = [Path(p) for p in args.o or ["attention.html"]]
    for path in paths:
        if path.suffix.lower() not in (".html", ".htm", ".png"):
            raise UsageError(
                f"{path}: unknown kind of file", place="qkv look", fix="name it .html or .png"
            )
        if os.path.isfile(args.text) and path.exists() and path.samefile(args.text):
            raise UsageError(
                f"{path} is the picture itself", place="qkv look", fix="-o another.png"
            )
    if not args.text.strip():
        raise UsageError("an empty text", place="qkv look", fix="give a sentence")
    from ..decode.rows import prompted

    model = open_model(args.model, "look")
    translates = hasattr(model.net, "step") and not prompted(model.net)
    if args.beam and not translates:
        raise UsageError("--beam is for translations", place="qkv look", fix="leave it out")
    if hasattr(model.net, "found"):
        seen = _things(model, args.text)
    elif model.has_pictures:
        seen = _picture(model, args.text)
    elif translates:
        beam = args.beam or model.decode.beam
        seen = translated(model, model.translate(args.text, beam=beam))
    else:
        seen = _read(model, args.text)
    seen.write(paths)
    if args.json:
        emit({**seen.told, "files": [str(p) for p in paths]})
        return
    for line in (*seen.lines, *map(str, paths)):
        result(flat(line))


def _things(model: "Model", path: str) -> Seen:
    """What was found in a picture, and where each query looked."""
    from ..detect import overlay
    from ..look.pictures import overlay_png

    found, view = overlay(model, path)
    lines = [str(thing) for thing in found]
    return Seen(path, [view], lambda _: overlay_png(view), found.to_dict(), lines)


def _picture(model: "Model", path: str) -> Seen:
    """Where an encoder of pictures looks: rollout, layers and heads, and every patch on a page."""
    from ..gaze import gaze
    from ..look.pictures import overlay_png

    seen = gaze(model, path)
    view, answer = seen.overlay(), seen.answer
    told = {**({} if answer is None else answer.to_dict()), "grid": list(seen.grid)}
    lines = [] if answer is None else [str(answer)]
    return Seen(path, [view], lambda _: overlay_png(view), told, lines)


def _read(model: "Model", text: str) -> Seen:
    """What a model of one text looks at while it reads."""
    from ..decode.rows import prompted
    from ..inside import inside
    from ..look.plots import alignment_png, grid_png
    from ..look.views import Alignment

    seen = inside(model, text)
    grid = seen.grid()
    label = t("the query that reads the text", "글 전체를 읽는 query")
    pools = [
        Alignment(seen.tokens, (t("whole text", "글 전체"),), m[0].mean(0), label)
        for m in seen.maps.values()
        if m.shape[2] == 1 < len(seen.tokens)  # one token alone reads as every query does
    ]
    views: list[Any] = [*pools, *([grid] if grid.maps else [])]
    if not prompted(model.net) and seen.sparse():  # a triangle needs no telling
        views += [v for i in (0, -1) for v in seen.sparsity(i).views()]
    if seen.exact:  # the maps above are those that random features imply
        views += [v for i in (0, -1) for v in seen.implied(i).views()]

    def png(_: Path) -> bytes:
        if grid.maps:
            return grid_png(grid, next(iter(grid.groups())), text)
        return alignment_png(pools[0], text)

    return Seen(text, views, png, {"tokens": list(seen.tokens)})


def translated(model: "Model", translation: "Translation") -> Seen:
    """The attention of a translation: a page with all heads, a picture of the alignment.

    Raises UsageError for a model without attention."""
    from ..look.plots import alignment_png
    from ..look.views import Alignment, Grid, alignment

    maps = model.maps(translation)
    if not maps:
        raise UsageError(
            f"this {model.family} has no attention to look at",
            place="qkv look",
            fix="train one with model.attention = true",
        )
    source, target = translation.source_tokens, (*translation.tokens, "<eos>")
    title = f"{translation.source} → {translation.text}"
    views: list[Any] = [Grid(maps, source, target)]
    mean: Alignment | None = None
    if any(name.split(".")[-1] == "cross" for name in maps):
        label = t("last layer, mean of all heads", "마지막 층, 모든 헤드의 평균")
        mean = Alignment(source, target, alignment(maps), label)
        views.insert(0, mean)

    def png(path: Path) -> bytes:
        if mean is None:
            raise UsageError("no attention to the source to draw", place=path, fix="write .html")
        return alignment_png(mean, title)

    return Seen(title, views, png, translation.to_dict(), [translation.text])


# ---- doctor


def doctor(args: Args) -> int:
    """Check the machine, or the laws of a model.  Raises LawError QKV-072 when one fails."""
    if args.model is None:
        from .machine import checks

        found = checks()
        if args.json:
            emit([c.to_dict() for c in found])
        else:
            _show([(c.ok, c.name, c.seen, c.fix) for c in found])
        return 0 if all(c.ok is not False for c in found) else 1
    model = open_model(args.model, "doctor")
    from ..doctor import check

    say(t("checking the laws …", "법칙을 점검하는 중 …"))
    laws = list(check(model))
    if args.json:
        emit(laws)
    else:
        _show([(law.passed, law.name, str(law.seen), str(law.bound)) for law in laws])
    broken = [law.name for law in laws if not law.passed]
    if broken:
        raise LawError(
            f"{len(broken)} of {len(laws)} laws do not hold: {', '.join(broken)}",
            place=args.model,
            fix="the table says what was seen; report it with the recipe",
        )
    return 0


def _show(rows: list[tuple[bool | None, str, str, str]]) -> None:
    import sys

    marks = {True: ("ok", "32"), False: ("FAIL", "31"), None: ("–", "33")}
    lines = table([(marks[ok][0], name, seen, note) for ok, name, seen, note in rows])
    for (ok, *_), line in zip(rows, lines, strict=True):
        mark, colour = marks[ok]
        if colours(sys.stdout):
            line = line.replace(mark, f"\x1b[{colour}m{mark}\x1b[0m", 1)
        result(line)
