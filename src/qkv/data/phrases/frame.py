"""A frame is a sentence with slots: every choice of fillers makes one English sentence and its Korean ones."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import product
from math import prod
from typing import Any, NamedTuple

from . import english as e
from . import words as w
from .actions import Action, fits
from .hangul import particle
from .verbs import conjugate

Made = tuple[Sequence[str], str] | None  # Korean variants and the English they share
ENDINGS = {  # name: (반말, 해요체)
    "present": ("아/어", "아/어요"),
    "past": ("았/었어", "았/었어요"),
    "plan": ("(으)ㄹ 거야", "(으)ㄹ 거예요"),
    "promise": ("(으)ㄹ게", "(으)ㄹ게요"),
    "want": ("고 싶어", "고 싶어요"),
    "wanted": ("고 싶었어", "고 싶었어요"),
    "now": ("고 있어", "고 있어요"),
    "can": ("(으)ㄹ 수 있어", "(으)ㄹ 수 있어요"),
    "cannot": ("(으)ㄹ 수 없어", "(으)ㄹ 수 없어요"),
    "must": ("아/어야 해", "아/어야 해요"),
    "had to": ("아/어야 했어", "아/어야 했어요"),
    "may": ("아/어도 돼", "아/어도 돼요"),
    "may not": ("(으)면 안 돼", "(으)면 안 돼요"),
    "please": ("아/어 줘", "아/어 주세요"),
    "could": ("아/어 줄래", "아/어 줄래요"),
    "do not": ("지 마", "지 마세요"),
    "shall": ("(으)ㄹ까", "(으)ㄹ까요"),
    "feel like": ("(으)ㄹ래", "(으)ㄹ래요"),
    "not": ("지 않아", "지 않아요"),
    "did not": ("지 않았어", "지 않았어요"),
    "will not": ("지 않을 거야", "지 않을 거예요"),
    "tried": ("아/어 봤어", "아/어 봤어요"),
    "know how": ("(으)ㄹ 줄 알아", "(으)ㄹ 줄 알아요"),
    "surprise": ("네", "네요"),
}
BOTH = (True, False)  # 반말, 해요체


class Frame(NamedTuple):
    name: str
    category: str
    cap: int  # combinations kept, about; the rest are thinned by hash
    slots: tuple[Sequence[Any], ...]
    make: Callable[..., Made]

    def combinations(self) -> Iterator[tuple[str, Sequence[str], str]]:
        """(key, Korean variants, English) of every kept combination; the key names frame and fillers."""
        size = prod(len(slot) for slot in self.slots)
        for fillers in product(*self.slots):
            if not _sensible(fillers):
                continue
            key = "|".join([self.name, *(_name(f) for f in fillers)])
            if fraction("keep", key) * size <= self.cap and (made := self.make(*fillers)):
                yield key, made[0], made[1]


FRAMES: list[Frame] = []


def frame(category: str, cap: int, *slots: Sequence[Any]) -> Callable[[Callable[..., Made]], Callable[..., Made]]:  # fmt: skip
    """Register a function of one filler a slot as a frame named after it."""

    def register(make: Callable[..., Made]) -> Callable[..., Made]:
        FRAMES.append(Frame(make.__name__, category, cap, slots, make))
        return make

    return register


def fraction(salt: str, key: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    return int.from_bytes(sha256(f"{salt}|{key}".encode()).digest()[:8], "big") / 2**64


def _sensible(fillers: Sequence[object]) -> bool:
    """Every action suits every time beside it."""
    actions = [f for f in fillers if isinstance(f, Action)]
    times = [f.en for f in fillers if isinstance(f, w.Phrase)]
    return all(fits(action, time) for action in actions for time in times)


def _name(filler: object) -> str:
    return str(getattr(filler, "ko", filler))


def topic(who: w.Subject, casual: bool) -> str:
    """The subject with 은/는; I stays unsaid, as in speech."""
    return "" if who is w.I else particle(who.casual if casual else who.polite, "은/는")


def say(name: str, action: Action, before: str = "", *, who: w.Subject = w.I, adverb: str = "", end: str = ".") -> list[str]:  # fmt: skip
    """Both levels of one sentence: topic, what stands before the phrase, the phrase."""
    made = []
    for casual in BOTH:
        ending = ENDINGS[name][not casual]
        phrase = action.say(ending, casual, adverb=adverb, respect=who.respected)
        made.append(line(topic(who, casual), before, phrase, end=end))
    return made


def line(*parts: str, end: str = ".") -> str:
    return " ".join(p for p in parts if p) + end


def levels(verb: str, name: str, before: str = "", end: str = ".", adverb: str = "") -> list[str]:
    """Both levels of a verb or adjective after some fixed words."""
    return [line(before, adverb, conjugate(verb, ending), end=end) for ending in ENDINGS[name]]


def copula(noun: str, before: str = "", end: str = ".") -> list[str]:
    """noun이야/야 and noun이에요/예요."""
    return [line(before, particle(noun, pair), end=end) for pair in ("이야/야", "이에요/예요")]


def clause(who: w.Subject, tense: str, action: Action, *, negative: bool = False, mid: str = "", every: bool = False) -> str:  # fmt: skip
    """The English of a statement: agreement, auxiliary and verb, without its times.

    The simple present speaks of kinds (reads books), unless it happens `every` so often (reads a book every day)."""
    general = tense == "present" and not every
    rest = action.tail(who.pronoun, general)
    base, mine = action.base, who.agree
    does = "does" if mine in ("he", "she", "it") else "do"
    be = (e.is_not if negative else e.short)(who.en, e.be(mine))
    if tense == "now" or (tense == "plan" and base in ("go", "come")):
        return _join(be, mid, _ing(tense, base, rest), rest)
    if tense == "plan":
        return _join(be, "going to", base, rest)
    if tense == "past":
        verb = f"didn't {base}" if negative else e.past(base)
        return _join(who.en, mid, verb, rest)
    if tense == "present":
        verb = f"{does}n't {base}" if negative else (e.third(base) if does == "does" else base)
        return _join(who.en, mid, verb, rest)
    return _join(who.en, tense, base, rest)  # a modal: can, can't, will, won't, couldn't


def ask(who: w.Subject, tense: str, action: Action, mid: str = "") -> str:
    """The English of a yes/no question, without its mark."""
    base, rest, mine = action.base, action.tail(who.pronoun), who.agree
    name = yours(who)
    if tense in ("now", "plan"):
        verb = _ing(tense, base, rest)
        if tense == "plan" and base not in ("go", "come"):
            verb = f"going to {base}"
        return _join(e.be(mine), name, verb, rest)
    does = "does" if mine in ("he", "she", "it") else "do"
    head = {"past": "did", "present": does}.get(tense, tense)
    return _join(head, name, mid, base, rest)


def yours(who: w.Subject) -> str:
    """Asked of, a family is the listener's: 엄마는 어디에 있어요? is Where is your mom?"""
    return who.en.replace("my ", "your ")


def _ing(tense: str, base: str, rest: str) -> str:
    """going, but nobody is "going shopping now": they are shopping."""
    return "" if tense == "now" and rest == "shopping" else e.gerund(base)


def _join(*parts: str) -> str:
    return " ".join(p for p in parts if p)


YOU = w.Subject("너", "너", "you", "you")  # unsaid in Korean questions


def being(thing: w.Noun, tense: str = "present", negative: bool = False) -> str:
    """is, are, was, were, and their n't, for a thing."""
    return e.be(thing.person, tense) + ("n't" if negative else "")
