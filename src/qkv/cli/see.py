"""Verbs that look inside: look, doctor."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LawError, UsageError
from ..messages import t
from .out import colours, emit, result, say, table
from .parse import Args
from .use import open_model

if TYPE_CHECKING:
    from ..model import Model, Translation


# ---- look


def look(args: Args) -> None:
    """Translate one text and draw where it looked.  Raises UsageError for an unknown kind of file or a model without attention."""
    paths = [Path(p) for p in args.o or ["attention.html"]]
    for path in paths:
        if path.suffix.lower() not in (".html", ".htm", ".png"):
            raise UsageError(
                f"{path.name}: unknown kind of file", place="qkv look", fix="name it .html or .png"
            )
    if not args.text.strip():
        raise UsageError("an empty text", place="qkv look", fix="give a sentence")
    model = open_model(args.model, "look")
    translation = model.translate(args.text, beam=args.beam or model.decode.beam)
    draw(model, translation, paths)
    if args.json:
        emit({**translation.to_dict(), "files": [str(p) for p in paths]})
        return
    result(translation.text)
    for path in paths:
        result(str(path))


def draw(model: "Model", translation: "Translation", paths: list[Path]) -> None:
    """Write the attention of a translation: a page with all heads, or a picture of the alignment."""
    from ..look.page import page
    from ..look.plots import alignment_png
    from ..look.views import Alignment, Grid, alignment
    from ..weights import store

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
    mean = None
    if any(name.split(".")[-1] == "cross" for name in maps):
        label = t("last layer, mean of all heads", "마지막 층, 모든 헤드의 평균")
        mean = Alignment(source, target, alignment(maps), label)
        views.insert(0, mean)
    for path in paths:
        if path.suffix.lower() != ".png":
            store.write_file(path, page(title, views).encode())
        elif mean is None:
            raise UsageError("no attention to the source to draw", place=path, fix="write .html")
        else:
            store.write_file(path, alignment_png(mean, title))


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
