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
    """Draw where a model looked: translating one text, or reading it.  Raises UsageError for an unknown kind of file or a model without attention."""
    paths = [Path(p) for p in args.o or ["attention.html"]]
    for path in paths:
        if path.suffix.lower() not in (".html", ".htm", ".png"):
            raise UsageError(
                f"{path.name}: unknown kind of file", place="qkv look", fix="name it .html or .png"
            )
    if not args.text.strip():
        raise UsageError("an empty text", place="qkv look", fix="give a sentence")
    from ..decode.rows import prompted

    model = open_model(args.model, "look")
    if hasattr(model.net, "found"):
        _look_for(model, args, paths)
        return
    if model.has_pictures:
        _look_at(model, args, paths)
        return
    if not hasattr(model.net, "step") or prompted(model.net):
        _look_inside(model, args, paths)
        return
    translation = model.translate(args.text, beam=args.beam or model.decode.beam)
    draw(model, translation, paths)
    if args.json:
        emit({**translation.to_dict(), "files": [str(p) for p in paths]})
        return
    result(translation.text)
    for path in paths:
        result(str(path))


def _look_for(model: "Model", args: Args, paths: list[Path]) -> None:
    """Draw what was found in a picture, and where each query looked."""
    from ..detect import overlay
    from ..look.page import page
    from ..look.pictures import overlay_png
    from ..weights import store

    if args.beam:
        raise UsageError("--beam is for translations", place="qkv look", fix="leave it out")
    found, view = overlay(model, args.text)
    for path in paths:
        png = path.suffix.lower() == ".png"
        made = overlay_png(view) if png else page(args.text, [view]).encode()
        store.write_file(path, made)
    if args.json:
        emit({**found.to_dict(), "files": [str(p) for p in paths]})
        return
    for line in [*map(str, found), *map(str, paths)]:
        result(line)


def _look_at(model: "Model", args: Args, paths: list[Path]) -> None:
    """Draw where an encoder of pictures looks: rollout, layers and heads, and every patch on a page."""
    from ..gaze import gaze
    from ..look.page import page
    from ..look.pictures import overlay_png
    from ..weights import store

    if args.beam:
        raise UsageError("--beam is for translations", place="qkv look", fix="leave it out")
    seen = gaze(model, args.text)
    view = seen.overlay()
    for path in paths:
        png = path.suffix.lower() == ".png"
        store.write_file(path, overlay_png(view) if png else page(args.text, [view]).encode())
    if args.json:
        said = {} if seen.answer is None else seen.answer.to_dict()
        emit({**said, "grid": list(seen.grid), "files": [str(p) for p in paths]})
        return
    for line in [*([] if seen.answer is None else [str(seen.answer)]), *map(str, paths)]:
        result(line)


def _look_inside(model: "Model", args: Args, paths: list[Path]) -> None:
    """Draw what a model of one text looks at while it reads."""
    from ..decode.rows import prompted
    from ..inside import inside
    from ..look.page import page
    from ..look.plots import alignment_png, grid_png
    from ..look.views import Alignment
    from ..weights import store

    if args.beam:
        raise UsageError("--beam is for translations", place="qkv look", fix="leave it out")
    seen = inside(model, args.text)
    grid = seen.grid()
    label = t("the query that reads the text", "글 전체를 읽는 query")
    pools = [
        Alignment(seen.tokens, (t("whole text", "글 전체"),), m[0].mean(0), label)
        for m in seen.maps.values()
        if m.shape[2] == 1
    ]
    views: list[Any] = [*pools, *([grid] if grid.maps else [])]
    if not prompted(model.net) and seen.sparse():  # a triangle needs no telling
        views += [v for i in (0, -1) for v in seen.sparsity(i).views()]
    if seen.exact:  # the maps above are those that random features imply
        views += [v for i in (0, -1) for v in seen.implied(i).views()]
    for path in paths:
        if path.suffix.lower() != ".png":
            store.write_file(path, page(args.text, views).encode())
        elif grid.maps:
            store.write_file(path, grid_png(grid, next(iter(grid.groups())), args.text))
        else:
            store.write_file(path, alignment_png(pools[0], args.text))
    if args.json:
        emit({"tokens": list(seen.tokens), "files": [str(p) for p in paths]})
        return
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
