"""Verbs that use a model: translate, eval."""

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, MissingError, QkvError, UsageError
from ..messages import t
from .each import over_texts
from .out import bold, emit, one_line, result, say, table
from .parse import Args
from .table import BY_NAME

if TYPE_CHECKING:
    from ..model import Model, Translation

CHUNK = (
    1 << 16
)  # bytes read from a pipe at a time: a fast pipe gives many lines, a slow one gives each as it comes
BOM = b"\xef\xbb\xbf"
LINES = 1024  # lines of a file translated together


def open_model(source: str | None, verb: str) -> "Model":
    """The model of --model.  Raises UsageError that names the runs there are when it was not given."""
    if source is None:
        there = sorted(Path("runs").glob("*/best"), key=lambda p: p.stat().st_mtime)
        fix = f"add --model {there[-1].parent}" if there else "make one first: qkv demo"
        raise UsageError("--model is missing", place=f"qkv {verb}", fix=fix)
    from ..checkpoints import load

    with heard():
        return load(source)


@contextmanager
def heard() -> Iterator[None]:
    """Warnings of the library are messages."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in found:
        say(one_line(str(warning.message), 4096))


# ---- translate


def translate(args: Args) -> int:
    """Translate words of the command line, files and standard input: one line (or JSON line) per text, in order."""
    if not args.text and sys.stdin is not None and sys.stdin.isatty():
        say(t("one text per line; Ctrl-D ends", "한 줄에 하나씩 쓰세요. Ctrl-D로 끝냅니다"))
    chunks = begun(texts(args.text))
    model = open_model(args.model, "translate")

    def ask(given: list[str]) -> Sequence[Any]:
        found: Sequence[Any] = model.translate(
            given,
            beam=args.beam or model.decode.beam,
            nbest=args.nbest,
            max_new_tokens=args.max_new_tokens,
            batch_tokens=args.batch_tokens,
        )
        return found

    def show(text: str, answer: Any) -> None:
        _show(text, answer if isinstance(answer, list) else [answer], args)

    return over_texts(chunks, ask, show, json=args.json, alone=one_word(args.text))


def _show(text: str, answers: "list[Translation]", args: Args) -> None:
    if not text.strip():  # an empty line stays one, whatever a model would make of it
        answers = answers[:1]
    for rank, a in enumerate(answers, 1):
        answer = flat(a.text) if text.strip() else ""
        if args.json:
            which = {"rank": rank} if args.nbest > 1 else {}
            emit({**which, **a.to_dict(), "text": a.text if text.strip() else ""})
        elif args.nbest > 1:
            result(f"{rank}\t{a.score:.3f}\t{answer}")
        else:
            result(answer)


def flat(text: str) -> str:
    """A translation is one line of output, and no character of it drives the terminal."""
    return one_line(text.replace("\n", " ").replace("\r", " "), 1 << 30)


def begun(chunks: Iterator[list[str]]) -> Iterator[list[str]]:
    """The same, its first already read: a missing file is told before a model is loaded."""
    first = next(chunks, None)
    return chunks if first is None else chain([first], chunks)


def one_word(words: list[str]) -> bool:
    """Is one text all there is, given as it stands?"""
    return len(words) == 1 and not _refers(words[0])


def _refers(word: str) -> bool:
    """Does it stand for the lines of a file, or of standard input?"""
    return word == "-" or (word.startswith("@") and len(word) > 1)


def texts(words: list[str], whole: bool = False, verb: str = "translate") -> Iterator[list[str]]:
    """The texts to read, in chunks: words as they stand, the lines of @FILE, the lines of standard input (-).

    whole: a file, and standard input, is one text as it stands but for empty lines around it.
    Raises MissingError QKV-020, DataError QKV-030 for what is not UTF-8."""
    plain: list[str] = []
    for word in words or ["-"]:
        if not _refers(word):
            plain.append(_utf8(word, verb))
            continue
        if plain:
            yield plain
            plain = []
        if whole:
            text = whole_file(word[1:]) if word != "-" else whole_stdin(verb)
            yield [text.strip("\n")]
        else:
            yield from chunked(file_lines(word[1:])) if word != "-" else stdin_lines(verb)
    if plain:
        yield plain


def _utf8(word: str, verb: str) -> str:
    try:
        word.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{one_line(word)} is not UTF-8",
            place=f"qkv {verb}",
            fix="use a UTF-8 terminal",
            code="QKV-030",
        ) from None
    return word


def chunked(lines: Iterable[str]) -> Iterator[list[str]]:
    """By 1,024; the lines before one that cannot be read come first."""
    chunk: list[str] = []
    try:
        for line in lines:
            chunk.append(line)
            if len(chunk) == LINES:
                yield chunk
                chunk = []
    except QkvError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def file_lines(path: str) -> Iterator[str]:
    """Every line of a text file, whatever its name; line n of the output answers line n of the input."""
    from ..data.lines import decode, read_lines
    from ..data.report import SkipReport

    report = SkipReport()
    for line in read_lines(path):
        text = decode(line, path, "strict", report)
        reason = "long line" if line.long else "NUL character" if "\0" in text else ""
        if reason:  # the line stays, empty, so that the others keep their numbers
            report.skip(path, line.number, reason)
        else:
            report.use()
        yield "" if reason else text.strip()
    if report.skipped:
        say(report.summary())


def whole_file(path: str) -> str:
    """All of a text file, .gz too, as it stands.  Raises DataError QKV-037 beyond 256 MiB."""
    from ..data.lines import read_whole

    return _whole(read_whole(path).raw, path)


def whole_stdin(verb: str) -> str:
    """All of standard input as it stands.  Raises as `whole_file`."""
    from ..data.lines import MAX_WHOLE

    fd, parts, size = _stdin(verb), [], 0
    while data := os.read(fd, CHUNK):
        parts.append(data)
        size += len(data)
        if size > MAX_WHOLE:
            raise DataError(
                f"more than {MAX_WHOLE >> 20} MiB in one text",
                place="stdin",
                fix="leave out --whole, or split it",
                code="QKV-037",
            )
    return _whole(b"".join(parts).removeprefix(BOM), "stdin")


def _whole(raw: bytes, place: str) -> str:
    try:
        return raw.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise _not_utf8(raw, e.start, f"{place}:{line}") from None


def stdin_lines(verb: str) -> Iterator[list[str]]:
    """Whole lines of standard input as they arrive.  Raises DataError QKV-030 with the line's number."""
    fd = _stdin(verb)
    rest, number = b"", 0
    while data := os.read(fd, CHUNK):
        *whole, rest = (rest + data).split(b"\n")
        if whole:
            yield from chunked(_line(raw, n) for n, raw in enumerate(whole, number + 1))
            number += len(whole)
    if rest:
        yield [_line(rest, number + 1)]


def _stdin(verb: str) -> int:
    if sys.stdin is None:
        raise MissingError("standard input is closed", place=f"qkv {verb}", fix="give a text")
    return sys.stdin.fileno()


def _line(raw: bytes, number: int) -> str:
    if number == 1:
        raw = raw.removeprefix(BOM)
    try:
        return raw.removesuffix(b"\r").decode().strip()
    except UnicodeDecodeError as e:
        raise _not_utf8(raw, e.start, f"stdin:{number}") from None


def _not_utf8(raw: bytes, at: int, place: str) -> DataError:
    from ..data.lines import remedy

    return DataError(
        f"byte {raw[at]:#04x} is not UTF-8", place=place, fix=remedy(raw), code="QKV-030"
    )


# ---- eval

FOR_TRANSLATIONS = frozenset(
    ("reference", "--plot", "--metrics", "--source", "--target", "--tokenize", "--lowercase", "--beam")
)  # fmt: skip


def only_translations(args: Args, names: frozenset[str]) -> None:
    """Raises UsageError where one of these was given."""
    for o in BY_NAME["eval"].opts:
        if o.name in names and getattr(args, o.name.lstrip("-")) not in (o.default, False):
            said = "a second file" if o.name == "reference" else o.name
            fix = "leave it out; columns are called as in the run's recipe ([data.train] fields)"
            raise UsageError(f"{said} is for translations", place="qkv eval", fix=fix)


def evaluate(args: Args) -> None:
    """Score a model on a file of pairs.  Raises what `qkv.evaluate` raises."""
    if args.plot and not args.plot.lower().endswith(".png"):
        fix = "--plot quality.png"
        raise UsageError(f"{args.plot}: plots are drawn as .png", place="qkv eval", fix=fix)
    model = open_model(args.run, "eval")
    from ..data.images.sources import ImageSource
    from ..data.sources import PairSource
    from ..score import evaluate as score
    from ..score import translates

    other = args.reference or ""
    if not translates(model):
        only_translations(
            args, FOR_TRANSLATIONS - {"reference"} if model.has_pictures else FOR_TRANSLATIONS
        )
    data: PairSource | ImageSource
    if model.has_pictures:
        boxes = args.file.lower().endswith(".json")
        data = ImageSource(
            path=args.file, images=other if boxes else "", labels="" if boxes else other
        )
    else:
        data = PairSource(
            path="" if other else args.file,
            source=_column(args.source),
            target=_column(args.target),
            source_path=args.file if other else "",
            target_path=other,
        )
    say(t(f"reading {args.file} …", f"{args.file} 읽는 중 …"))
    found = score(
        model,
        data,
        tuple(m.strip() for m in args.metrics.split(",") if m.strip()),
        beam=args.beam,
        tokenize=args.tokenize,
        lowercase=args.lowercase,
        batch_tokens=args.batch_tokens,
    )
    if args.json:
        emit(found)
    else:
        show_scores(found) if "sentences" in found else show_measures(found)
    if args.plot:
        sys.stdout.flush()
        draw_by_length(found, args.plot)


def show_measures(found: dict[str, Any]) -> None:
    """What an objective other than translation is measured by."""
    for line in table([(name, f"{value:.4f}") for name, value in found["scores"].items()], (1,)):
        result(line)
    n, skipped = found["examples"], sum(found["skipped"].values())
    result(t(f"{n:,} examples, {skipped:,} lines skipped", f"{n:,}개, {skipped:,}줄 건너뜀"))
    show_skipped(found)


def show_skipped(found: dict[str, Any]) -> None:
    """Of every reason how many, and the first places."""
    from ..data.report import worded

    for reason, n in found["skipped"].items():
        places = one_line(", ".join(found["places"][reason]))
        say(t("skipped", "건너뜀") + f" {n:,} ({worded(reason)}): {places}")


def draw_by_length(found: dict[str, Any], path: str) -> None:
    """Quality over the length of the source with its intervals (Bahdanau et al. 2015, figure 2)."""
    from ..look.plots import length_png
    from ..weights import store

    bins = found.get("by_length")
    if not bins:
        raise DataError("too few sentences to draw quality by length", fix="score more than 20")
    points = [((b["low"] + b["high"]) / 2, b["value"], b["lower"], b["upper"]) for b in bins]
    store.write_file(path, length_png({"BLEU": points}))
    say(t(f"wrote {path}", f"{path} 저장"))


def _column(word: str) -> str | int:
    return int(word) if word.isdecimal() else word


def show_scores(found: dict[str, Any], samples: bool = True) -> None:
    """The scores with their signatures, quality by length, some translations."""
    rows = [(s["name"], f"{s['value']:.2f}", s["signature"]) for s in found["scores"].values()]
    rows.append((t("perplexity", "퍼플렉시티"), f"{found['perplexity']:.2f}", ""))
    for line in table(rows, right=(1,)):
        result(line)
    n, skipped = found["sentences"], sum(found["skipped"].values())
    result(
        t(
            f"{n:,} sentences in {found['seconds']:.1f} s, {skipped:,} lines skipped",
            f"{n:,}문장, {found['seconds']:.1f}초, {skipped:,}줄 건너뜀",
        )
    )
    show_skipped(found)
    if found["by_length"]:
        result(
            "\n"
            + bold(t("by source length (tokens), 95 % interval", "원문 길이별 (토큰), 95 % 구간"))
        )
        bins = [
            (
                f"{b['low']}–{b['high']}",
                f"{b['value']:.1f}",
                f"[{b['lower']:.1f}, {b['upper']:.1f}]",
                f"{b['count']:,}",
            )
            for b in found["by_length"]
        ]
        for line in table(bins, right=(0, 1, 3)):
            result("  " + line)
    if samples and found["samples"]:
        result("\n" + bold(t("some translations", "번역 몇 개")))
        names = t("source", "원문"), t("reference", "정답"), t("model", "모델")
        for row in found["samples"][:5]:
            texts_ = row["source"], row["reference"], row["hypothesis"]
            for line in table(
                [(f"  {n}", one_line(x, 200)) for n, x in zip(names, texts_, strict=True)]
            ):
                result(line)
            result("")
