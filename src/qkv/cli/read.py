"""Verbs that ask an encoder about texts: fill, classify, tag, answer, embed."""

import re
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..errors import QkvError, UsageError
from .out import emit, result
from .parse import Args
from .use import flat, open_model, texts, whole_file

if TYPE_CHECKING:
    from ..model import Model

Show = Callable[[Any], str]
# a chunk's text by its place in the list, from 0; a person counts all that was given, empty lines too, from 1
NUMBER = re.compile(r"^(text|question) (\d+)\b")


def over(
    args: Args, verb: str, ask: "Callable[[Model, list[str]], Sequence[Any]]", show: Show
) -> int:
    """Every text's answer as it comes: lines of `show`, or JSON lines.  Empty lines stay empty lines.

    Of a model of pictures each word and line is the path of one."""
    whole = getattr(args, "whole", False)
    chunks = texts(args.text, whole, verb)
    first = next(chunks, None)  # a missing file is told before the model is loaded
    model = open_model(args.model, verb)
    if model.has_pictures:
        if whole:
            raise UsageError("--whole is for texts; this model reads pictures", fix="leave it out")
        from .pictures import over_pictures

        words = chain.from_iterable(chain([first or []], chunks))
        return over_pictures(words, lambda paths: ask(model, paths), show, args.json)
    before = 0  # texts of the chunks before this one
    while first is not None:
        asked = [i for i, text in enumerate(first) if text.strip()]
        try:
            found = iter(ask(model, [first[i] for i in asked]) if asked else [])
        except QkvError as e:
            raise renumbered(e, [before + i + 1 for i in asked]) from None
        before += len(first)
        for text in first:
            answer = next(found) if text.strip() else None
            if args.json:
                emit({"source": text} if answer is None else answer)
            else:
                result("" if answer is None else show(answer))
        sys.stdout.flush()
        first = next(chunks, None)
    return 0


def renumbered(e: QkvError, numbers: list[int]) -> QkvError:
    e.seen = NUMBER.sub(lambda m: f"{m[1]} {numbers[int(m[2])]}", e.seen)
    return e


def fill(args: Args) -> None:
    """The text with its gaps filled; with --n the n best words of each gap."""

    def show(found: Any) -> str:
        if args.n == 1:
            return flat(found.text)
        gaps = enumerate(found.gaps, 1)
        return "\n".join(f"{g}\t{w.score:.4f}\t{flat(w.word)}" for g, gap in gaps for w in gap)

    over(args, "fill", lambda model, given: model.fill(given, n=args.n), show)


def classify(args: Args) -> int:
    """label, probability; a tab in a text parts a pair.  Of pictures: path, label, probability."""

    def ask(model: "Model", given: list[str]) -> Sequence[Any]:
        if model.has_pictures:
            return list(model.classify(given, window=args.window, stride=args.stride))
        parted = not args.whole and model.habits.texts != 1  # a document may hold a tab
        pairs = [tuple(x.split("\t", 1)) if parted and "\t" in x else x for x in given]
        found: Sequence[Any] = model.classify(pairs, window=args.window, stride=args.stride)
        return found

    return over(args, "classify", ask, lambda c: f"{flat(c.label)}\t{c.score:.4f}")


def tag(args: Args) -> None:
    """The text with its spans in brackets."""
    over(args, "tag", lambda model, given: model.tag(given, on=args.on), lambda m: flat(str(m)))


def answer(args: Args) -> None:
    """What --context says to each question; an empty line where it says nothing."""
    if args.context is None:
        raise UsageError(
            "--context is missing",
            place="qkv answer",
            fix='give --context "…", or --context @FILE',
        )
    context = args.context
    if context.startswith("@") and len(context) > 1:
        context = whole_file(context[1:]).removesuffix("\n")

    def ask(model: "Model", given: list[str]) -> Sequence[Any]:
        found: Sequence[Any] = model.answer(given, context)
        return found

    over(args, "answer", ask, lambda a: flat(a.text) if a.found else "")


def embed(args: Args) -> None:
    """The numbers of each text's vector; JSON: {"source", "vector"}."""

    def ask(model: "Model", given: list[str]) -> Sequence[Any]:
        vectors = model.embed(given, pooling=args.pooling, normalize=args.normalize).tolist()
        return [{"source": s, "vector": v} for s, v in zip(given, vectors, strict=True)]

    over(args, "embed", ask, lambda x: " ".join(f"{v:.6g}" for v in x["vector"]))
