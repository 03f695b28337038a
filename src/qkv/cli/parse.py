"""Words of a command line -> the verb and its values, and the help texts; all from the table.

argparse reads the options.  Positional words are handed out here, so that they may stand anywhere between the
options and `--` ends the options for every verb."""

import argparse
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import UsageError, did_you_mean
from ..messages import t
from .out import bold
from .table import BY_NAME, COMMON, GROUPS, VERBS, VERSION, Opt, Verb

Args = argparse.Namespace


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(
            message.removeprefix("argument "), place=self.prog, fix=f"see `{self.prog} --help`"
        )


def split(argv: Sequence[str]) -> tuple[Verb | None, list[str]]:
    """The verb and the other words.  Options common to all verbs may stand before the verb.

    Raises UsageError on a verb or an option that does not exist."""
    words = list(argv)
    i = 0
    while i < len(words) and words[i].startswith("-"):
        name = words[i].partition("=")[0]
        known = {n for o in (*COMMON, VERSION) for n in (o.name, o.short) if n}
        if name not in known:
            raise UsageError(
                f"unknown option {name!r} before the verb",
                place="qkv",
                fix=did_you_mean(name, known),
            )
        i += 2 if words[i] == "--lang" else 1
    if i >= len(words):
        return None, words
    if words[i] not in BY_NAME:
        raise UsageError(
            f"unknown verb {words[i]!r}", place="qkv", fix=did_you_mean(words[i], BY_NAME)
        )
    return BY_NAME[words[i]], words[:i] + words[i + 1 :]


def parse(verb: Verb, words: Sequence[str]) -> Args:
    """The values of a verb's options and positionals.  Raises UsageError with the nearest known word."""
    prog = f"qkv {verb.name}"
    head, tail = list(words), []
    if "--" in head:
        at = head.index("--")
        head, tail = head[:at], head[at + 1 :]
    parser = _Parser(prog=prog, add_help=False, allow_abbrev=False)
    options = [o for o in (*verb.opts, *COMMON) if not o.positional]
    for o in options:
        _add(parser, o)
    parser.add_argument("_words", nargs="*")
    args, extra = parser.parse_known_args(head)
    unknown = [w for w in extra if w.startswith("-") and w != "-"]
    if unknown:
        raise _unknown(verb, unknown[0], options)
    for o in options:
        _check(o, args, prog)
    if not args.help:
        _hand_out(verb, args, [*args._words, *extra, *tail])
    return args


def _add(parser: argparse.ArgumentParser, o: Opt) -> None:
    names = [n for n in (o.short, o.name) if n]
    if not o.metavar:
        parser.add_argument(*names, dest=o.key, action="store_true")
    else:
        action = "append" if o.many else "store"
        parser.add_argument(*names, dest=o.key, action=action, default=o.default)


def _check(o: Opt, args: Args, prog: str) -> None:
    value = getattr(args, o.key)
    if o.choices and value is not None and value not in o.choices:
        raise UsageError(
            f"{o.name} {value!r} is not a choice", place=prog, fix=did_you_mean(value, o.choices)
        )
    if o.least is not None and value is not None:
        setattr(args, o.key, _real(o, value, prog))
    if o.low is None or value is None:
        return
    try:
        number = int(value)
    except ValueError:
        number = o.low - 1
    if number < o.low:
        raise UsageError(
            f"{o.name} must be a whole number of at least {o.low} (got {value!r})",
            place=prog,
            fix=f"try {o.name} {o.default or max(o.low, o.usual)}",
        )
    setattr(args, o.key, number)


def _real(o: Opt, value: str, prog: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= (o.least or 0.0)):
        raise UsageError(
            f"{o.name} must be a number of at least {o.least:g} (got {value!r})",
            place=prog,
            fix=f"try {o.name} 1",
        )
    return number


def _unknown(verb: Verb, word: str, options: Sequence[Opt]) -> UsageError:
    name = word.partition("=")[0]
    fix = did_you_mean(name, [o.name for o in options])
    if not name.startswith("--") and not fix.startswith("did"):
        fix = f"write -- before words that begin with a dash, or see `qkv {verb.name} --help`"
    return UsageError(f"unknown option {name!r}", place=f"qkv {verb.name}", fix=fix)


def _hand_out(verb: Verb, args: Args, words: list[str]) -> None:
    """Give the positional words to their names.  Raises UsageError when one is missing or left over."""
    for o in (o for o in verb.opts if o.positional):
        if o.many:
            taken, words = words, []
        else:
            taken, words = words[:1], words[1:]
        if not taken and not o.optional:
            raise UsageError(f"{o.shown} is missing", place=f"qkv {verb.name}", fix=verb.usage)
        value: Any = taken if o.many else next(iter(taken), None)
        setattr(args, o.key, value)
    if words:
        raise UsageError(
            f"unexpected word {words[0]!r}",
            place=f"qkv {verb.name}",
            fix=f"{verb.usage} (quote a text with spaces)",
        )


# ---- help


def help_all(version: str) -> str:
    """All verbs by group, one line each."""
    about = t("train, run and see attention models", "어텐션 모델을 학습하고, 쓰고, 들여다보기")
    lines = [
        f"{bold('qkv')} {version} — {about}",
        "",
        t("usage: qkv VERB [options]", "사용법: qkv VERB [options]"),
        t(
            "       qkv VERB --help   shows one verb",
            "        qkv VERB --help   동사 하나의 도움말",
        ),
    ]
    for group, (en, ko) in GROUPS.items():
        lines += ["", bold(t(en, ko))]
        lines += [f"  {v.name:<11}{v.help}" for v in VERBS if v.group == group]
    start = t("Start here:", "시작:")
    return "\n".join([*lines, "", f"{start}  qkv demo"])


def help_verb(verb: Verb) -> str:
    """One verb: what it does, its words, its options, examples."""
    lines = [bold(verb.usage), verb.help, ""]
    own = [o for o in verb.opts if o.positional] + [o for o in verb.opts if not o.positional]
    lines += [_line(o) for o in own]
    lines += [*([""] if own else []), *(_line(o) for o in COMMON)]
    if verb.examples:
        lines += ["", bold(t("examples", "예"))] + [f"  $ {e}" for e in verb.examples]
    return "\n".join(lines)


def _line(o: Opt) -> str:
    word = ", ".join(n for n in (o.short, o.shown) if n)
    default = f" [{o.default}]" if o.default is not None and o.metavar else ""
    return f"  {word:<22}{'' if len(word) < 22 else '  '}{o.help}{default}"
