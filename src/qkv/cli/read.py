"""Verbs that ask an encoder about texts: fill, classify, tag, answer, embed."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .each import over_texts
from .out import emit, result
from .parse import Args
from .use import begun, flat, heard, one_word, open_model, texts, whole_file

if TYPE_CHECKING:
    from ..model import Model

Show = Callable[[Any], str]


def over(
    args: Args, verb: str, ask: "Callable[[Model, list[str]], Sequence[Any]]", show: Show
) -> int:
    """Every text's answer as it comes: lines of `show`, or JSON lines; the exit code.  Empty lines stay empty lines.

    Of a model of pictures each word and line is the path of one."""
    whole = getattr(args, "whole", False)
    chunks = begun(texts(args.text, whole, verb))
    model = open_model(args.model, verb)
    if model.has_pictures:
        if whole:
            raise UsageError("--whole is for texts; this model reads pictures", fix="leave it out")
        from .pictures import over_pictures

        words = chain.from_iterable(chunks)
        return over_pictures(words, lambda paths: ask(model, paths), show, args.json)

    def real(given: list[str]) -> list[Any]:
        asked = [text for text in given if text.strip()]
        found = iter(ask(model, asked) if asked else ())
        return [next(found) if text.strip() else None for text in given]

    def line(text: str, answer: Any) -> None:
        if args.json:
            emit({"source": text} if answer is None else answer)
        else:
            result("" if answer is None else show(answer))

    return over_texts(chunks, real, line, json=args.json, alone=one_word(args.text))


def fill(args: Args) -> int:
    """The text with its gaps filled; with --n the n best words of each gap."""

    def show(found: Any) -> str:
        if args.n == 1:
            return flat(found.text)
        gaps = enumerate(found.gaps, 1)
        return "\n".join(f"{g}\t{w.score:.4f}\t{flat(w.word)}" for g, gap in gaps for w in gap)

    return over(args, "fill", lambda model, given: model.fill(given, n=args.n), show)


def classify(args: Args) -> int:
    """label, probability; a tab in a text parts a pair.  Of pictures: path, label, probability."""

    def ask(model: "Model", given: list[str]) -> Sequence[Any]:
        if model.has_pictures:
            return list(model.classify(given, window=args.window, stride=args.stride))
        parted = not args.whole and model.habits.texts != 1  # a document may hold a tab
        pairs = [tuple(x.split("\t", 1)) if parted and "\t" in x else x for x in given]
        with heard():
            found: Sequence[Any] = model.classify(pairs, window=args.window, stride=args.stride)
        return found

    return over(args, "classify", ask, lambda c: f"{flat(c.label)}\t{c.score:.4f}")


def tag(args: Args) -> int:
    """The text with its spans in brackets."""
    return over(
        args, "tag", lambda model, given: model.tag(given, on=args.on), lambda m: flat(str(m))
    )


def answer(args: Args) -> int:
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

    return over(args, "answer", ask, lambda a: flat(a.text) if a.found else "")


def embed(args: Args) -> int:
    """The numbers of each text's vector; JSON: {"source", "vector"}."""

    def ask(model: "Model", given: list[str]) -> Sequence[Any]:
        vectors = model.embed(given, pooling=args.pooling, normalize=args.normalize).tolist()
        return [{"source": s, "vector": v} for s, v in zip(given, vectors, strict=True)]

    return over(args, "embed", ask, lambda x: " ".join(f"{v:.6g}" for v in x["vector"]))
