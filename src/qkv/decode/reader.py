"""Text of growing ids: pieces that are never half a character, and never a part of a stop string."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

Decode = Callable[[Sequence[int]], str]
CONTEXT = 16  # tokens of the prompt that are read along, so that a first space is kept
HALF = "\ufffd"  # what a decoder writes for a character whose last bytes are still to come


@dataclass(frozen=True)
class Reader:
    """How ids become text, and the strings that end an answer."""

    decode: Decode
    stop: tuple[str, ...] = ()

    def start(self, prompt: Sequence[int] = ()) -> "Words":
        ids = list(prompt[-CONTEXT:])
        return Words(self, ids, len(ids))

    def text(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """The text of an answer, cut before the first stop string: its pieces, joined."""
        words = self.start(prompt)
        return "".join([*(words.add(i) for i in ids), words.close()])


@dataclass
class Words:
    """One answer.  ids[start:read] have been turned into text; what follows waits until it is whole."""

    reader: Reader
    ids: list[int]
    read: int
    start: int = 0
    held: str = field(default="", repr=False)  # might be the beginning of a stop string
    stopped: bool = False

    def add(self, i: int) -> str:
        """The text that may be shown now."""
        self.ids.append(i)
        return self.step(False)

    def then(self, i: int) -> "Words":
        """A copy that has read one more id."""
        made = replace(self, ids=list(self.ids))
        made.add(i)
        return made

    def step(self, last: bool) -> str:
        if self.stopped:
            return ""
        window = self.ids[self.start :]
        known = self.reader.decode(window[: self.read - self.start])
        fresh = beyond(known, self.reader.decode(window))
        if fresh is None:  # the window reads otherwise now: bytes that make no characters do that
            fresh = self.reader.decode(self.ids[self.read :])
        if not last and (not fresh or fresh.endswith(HALF)):
            return ""
        self.start, self.read = self.read, len(self.ids)
        return self.show(self.held + fresh, last)

    def show(self, text: str, last: bool) -> str:
        """The part before a stop string, or what cannot become one."""
        found = [at for at in (text.find(s) for s in self.reader.stop) if at >= 0]
        if found:
            self.stopped, self.held = True, ""
            return text[: min(found)]
        keep = 0 if last else max((partial(text, s) for s in self.reader.stop), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def close(self) -> str:
        """What was still held when the answer ended."""
        return self.step(True)


def beyond(known: str, whole: str) -> str | None:
    """What comes after `known` in `whole`, of which it was the text until now; None: it is not any more.

    A decoder that composes may have made one character of the last one and a new mark: then the mark alone."""
    if whole.startswith(known):
        return whole[len(known) :]
    a, b = (unicodedata.normalize("NFD", s) for s in (known, whole))
    return b[len(a) :] if b.startswith(a) else None


def partial(text: str, stop: str) -> int:
    """How many characters at the end of the text begin the stop string."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
