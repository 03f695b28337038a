"""Patterns as a recipe writes them: "window(256) | global(1)".

pattern  =  part { "|" part }                        either may see
part     =  leaf { "&" leaf }                        both must allow it; & binds tighter than |
leaf     =  name [ "(" value { "," value } ")" ]  |  "(" pattern ")"
value    =  number  |  setting "=" number            numbers without a name come first, in the order of the settings"""

import re
from dataclasses import MISSING, fields

from ..errors import ConfigError, did_you_mean
from .rules import Blocks, Both, Causal, Dilated, Either, Full, Global, Pattern, Window

LEAVES: dict[str, type[Pattern]] = {
    "full": Full,
    "causal": Causal,
    "window": Window,
    "dilated": Dilated,
    "global": Global,
    "blocks": Blocks,
}
LONGEST = 500  # characters
DEEPEST = 16  # brackets within brackets
MOST = 64  # leaves
WORD = re.compile(r"\s*(?:([a-z_]+)|([0-9]{1,12})|([|&(),=]))", re.ASCII)
EXAMPLE = 'write it like "window(256) | global(1)"'


def parse(text: str) -> Pattern:
    """The pattern that a recipe names.  Raises ConfigError: QKV-010 for an unknown name, QKV-015 for a missing number,
    else QKV-012."""
    return Reader(text).whole()


def spelled(pattern: Pattern) -> str:
    """The inverse of `parse`: parse(spelled(p)) == p.  Settings that are as usual are left out."""
    if isinstance(pattern, Either):
        right = spelled(pattern.other)
        right = f"({right})" if isinstance(pattern.other, Either) else right
        return f"{spelled(pattern.one)} | {right}"
    if isinstance(pattern, Both):
        sides = [spelled(side) for side in (pattern.one, pattern.other)]
        if isinstance(pattern.one, Either):
            sides[0] = f"({sides[0]})"
        if isinstance(pattern.other, (Either, Both)):
            sides[1] = f"({sides[1]})"
        return " & ".join(sides)
    for name, leaf in LEAVES.items():
        if type(pattern) is leaf:
            return name + _settings(pattern)
    raise ConfigError(
        f"{type(pattern).__name__} has no name in recipes", fix=f"one of {', '.join(LEAVES)}"
    )


def _settings(pattern: Pattern) -> str:
    said = []
    for f in fields(pattern):  # type: ignore[arg-type]
        value = getattr(pattern, f.name)
        if f.default is MISSING:
            said.append(str(value))
        elif value != f.default:
            said.append(f"{f.name}={int(value)}")
    return f"({', '.join(said)})" if said else ""


class Reader:
    """One text, read from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth, self.leaves = text, 0, 0, 0
        if len(text) > LONGEST:
            raise ConfigError(
                f"a pattern of {len(text)} characters", fix=f"at most {LONGEST}", code="QKV-012"
            )

    def wrong(self, seen: str, fix: str = EXAMPLE, code: str = "QKV-012") -> ConfigError:
        return ConfigError(f"pattern {self.text[:80]!r}: {seen}", fix=fix, code=code)

    def word(self) -> str:
        """The next word, and past it; empty at the end."""
        found = WORD.match(self.text, self.at)
        if found is None:
            rest = self.text[self.at :].strip()
            if rest:
                raise self.wrong(f"cannot read {rest[:20]!r}")
            return ""
        self.at = found.end()
        return found.group().strip()

    def peek(self) -> str:
        at = self.at
        word = self.word()
        self.at = at
        return word

    def need(self, wanted: str) -> None:
        if (word := self.word()) != wanted:
            raise self.wrong(f"expected {wanted!r} before {word or 'the end'!r}")

    def whole(self) -> Pattern:
        made = self.either()
        if word := self.word():
            raise self.wrong(f"{word!r} stands where the pattern should end")
        return made

    def either(self) -> Pattern:
        made = self.both()
        while self.peek() == "|":
            self.word()
            made = made | self.both()
        return made

    def both(self) -> Pattern:
        made = self.leaf()
        while self.peek() == "&":
            self.word()
            made = made & self.leaf()
        return made

    def leaf(self) -> Pattern:
        name = self.word()
        self.leaves += 1
        if self.leaves > MOST:
            raise self.wrong(f"more than {MOST} parts")
        if name == "(":
            self.depth += 1
            if self.depth > DEEPEST:
                raise self.wrong(f"brackets more than {DEEPEST} deep")
            made = self.either()
            self.need(")")
            self.depth -= 1
            return made
        if name not in LEAVES:
            if not name.isidentifier():
                raise self.wrong(f"expected a pattern before {name or 'the end'!r}")
            raise self.wrong(f"unknown pattern {name!r}", did_you_mean(name, LEAVES), "QKV-010")
        return self.made(name)

    def made(self, name: str) -> Pattern:
        """The leaf of that name, its settings being what follows."""
        leaf = LEAVES[name]
        known = {f.name: f for f in fields(leaf)}  # type: ignore[arg-type]
        given = self.settings(name, list(known)) if self.peek() == "(" else {}
        for setting, f in known.items():
            if f.default is MISSING and setting not in given:
                raise self.wrong(
                    f"{name} needs its {setting}", f"like {name}({setting}=64)", "QKV-015"
                )
        for setting, value in given.items():
            if isinstance(known[setting].default, bool) and value not in (0, 1):
                raise self.wrong(f"{setting} is 0 or 1 (got {value})")
        values = {s: bool(v) if isinstance(known[s].default, bool) else v for s, v in given.items()}
        try:
            return leaf(**values)
        except ConfigError as e:
            raise self.wrong(e.seen, e.fix, e.code) from None

    def settings(self, name: str, known: list[str]) -> dict[str, int]:
        given: dict[str, int] = {}
        self.need("(")
        while True:
            word = self.word()
            setting = known[len(given)] if len(given) < len(known) else ""
            if word.isidentifier():
                setting = word
                if setting not in known:
                    raise self.wrong(
                        f"{name} has no {setting!r}", did_you_mean(setting, known), "QKV-010"
                    )
                self.need("=")
                word = self.word()
            elif list(given) != known[: len(given)]:
                raise self.wrong(
                    f"{word or 'the end'!r} follows a setting with a name: name it too"
                )
            if not word.isdigit():
                raise self.wrong(f"expected a number before {word or 'the end'!r}")
            if not setting or setting in given:
                raise self.wrong(f"{name} is given {setting or 'a number'} too often")
            given[setting] = int(word)
            if (word := self.word()) == ")":
                return given
            if word != ",":
                raise self.wrong(f"expected ',' or ')' before {word or 'the end'!r}")
