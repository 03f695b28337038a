"""Verbs that write: generate, chat, summarize."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..messages import t
from .each import over_texts
from .out import CONTROL, bold, emit, result, say
from .parse import Args
from .use import begun, flat, one_word, open_model, texts, whole_file

if TYPE_CHECKING:
    from ..model import Model

LONGEST = 128  # tokens of an answer, where neither the person nor the model says


def longest(model: "Model", asked: int | None) -> int:
    """What was asked for; else an encoder-decoder's own limit, or 128; never more than its positions hold."""
    from ..decode.rows import prompted

    if asked is not None:
        return asked
    own = None if prompted(model.net) else model.decode.max_new_tokens
    most = getattr(model.net, "max_positions", None)
    return min(own or LONGEST, most or own or LONGEST)


def sampling(model: "Model", args: Args) -> dict[str, Any]:
    """The options of drawing as `Model.generate` takes them."""
    return {
        "max_new_tokens": longest(model, args.max_new_tokens),
        "temperature": args.temperature or 0.0,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "seed": args.seed,
        "repetition_penalty": args.repetition_penalty,
    }


def generate(args: Args) -> int:
    """Continue every prompt: as it comes on a terminal, else one answer (its lines as they are) after the other."""
    before = whole_file(args.examples).removesuffix("\n") + "\n" if args.examples else ""
    chunks = begun(texts(args.text, args.whole, "generate"))
    model = open_model(args.model, "generate")
    how = sampling(model, args) | {"stop": tuple(args.stop or ()), "beam": args.beam or 1}
    live = sys.stdout.isatty() and not args.json and how["beam"] == 1

    def ask(given: list[str]) -> Sequence[Any]:
        prompts = [before + text for text in given]
        if live:  # one at a time, see below
            flow(model.generate(prompts[0], stream=True, **how))
            return [None]
        found: Sequence[Any] = model.generate(prompts, **how)
        return found

    def show(text: str, answer: Any) -> None:
        if not live:
            emit(answer) if args.json else result(shown(answer.text))

    def told() -> Iterator[list[str]]:
        for chunk in chunks:
            tell_room(model, [before + text for text in chunk], args.max_new_tokens or LONGEST)
            yield from ([text] for text in chunk) if live else [chunk]  # it flows while it is made

    return over_texts(told(), ask, show, json=args.json, alone=one_word(args.text))


def tell_room(model: "Model", prompts: list[str], wanted: int) -> None:
    """An answer that the model's positions will cut short is told beforehand."""
    from ..decode.rows import prompted

    most = getattr(model.net, "max_positions", None)
    if most is None or not prompted(model.net):
        return
    rooms = [most - len(model.ids(prompt)) for prompt in prompts]
    room = min((n for n in rooms if n > 0), default=wanted)  # where there is none, an error says so
    if room < wanted:
        say(
            t(
                f"the model has {most} positions: {room} tokens are left for the answer",
                f"이 모델의 위치는 {most}개라서 답은 {room}토큰까지입니다",
            )
        )


def flow(pieces: Any) -> None:
    """Pieces of text as they come; Ctrl-C ends the answer, not the program's good manners."""
    for piece in pieces:
        print(shown(piece), end="", flush=True)
    print()


def shown(text: str) -> str:
    """An answer may have several lines; no other control character of it reaches the terminal."""
    return CONTROL.sub(lambda m: m[0] if m[0] == "\n" else "", text)


def summarize(args: Args) -> int:
    """One line for each text."""
    chunks = begun(texts(args.text, args.whole, "summarize"))
    model = open_model(args.model, "summarize")

    def ask(given: list[str]) -> Sequence[Any]:
        found: Sequence[Any] = model.summarize(
            given,
            beam=args.beam or model.decode.beam,
            max_new_tokens=args.max_new_tokens,
            batch_tokens=args.batch_tokens,
        )
        return found

    def show(text: str, answer: Any) -> None:
        emit(answer) if args.json else result(flat(answer.text))

    return over_texts(chunks, ask, show, json=args.json, alone=one_word(args.text))


def chat(args: Args) -> None:
    """Turns from the command line, files or standard input; the model remembers what was said."""
    model = open_model(args.model, "chat")
    live = sys.stdout.isatty() and not args.json
    if not args.text and sys.stdin is not None and sys.stdin.isatty():
        say(t("one turn per line; Ctrl-D ends", "한 줄에 한 마디씩 쓰세요. Ctrl-D로 끝냅니다"))
    turns: list[tuple[str, str]] = []
    for said in (text for chunk in texts(args.text, verb="chat") for text in chunk if text.strip()):
        turns.append(("user", said))
        turns.append(("assistant", answered(model, turns, args, live)))


def answered(model: "Model", turns: list[tuple[str, str]], args: Args, live: bool) -> str:
    """What the model says next, shown as it comes on a terminal."""
    how, most = sampling(model, args), getattr(model.net, "max_positions", None)
    if args.max_new_tokens is None and most is not None:  # what was said needs positions too
        how["max_new_tokens"] = max(1, min(how["max_new_tokens"], most // 2))
    if not live:
        answer = model.chat(turns, **how)
        emit(answer) if args.json else result(flat(answer.text))
        return str(answer.text)
    print(bold("» "), end="", flush=True)
    pieces = []
    for piece in model.chat(turns, stream=True, **how):
        pieces.append(piece)
        print(shown(piece), end="", flush=True)
    print()
    return "".join(pieces)
