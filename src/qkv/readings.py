"""What reading a text gives: words for a gap, labels, spans, an answer.  Each prints, is a dict, and shows in a notebook."""

from dataclasses import asdict, dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Guess:
    """A word for a gap.  score: its probability among all pieces of the vocabulary."""

    word: str
    token: str  # the piece as the vocabulary has it
    id: int
    score: float


@dataclass(frozen=True)
class Filled:
    """gaps: the best guesses for each, best first; text: the source with the best in every gap."""

    source: str
    text: str
    gaps: tuple[tuple[Guess, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        rows = "".join(bars([(g.word, g.score) for g in gap]) for gap in self.gaps)
        return f"<p>{escape(self.text)}</p>{rows}"


@dataclass(frozen=True)
class Label:
    name: str
    score: float


@dataclass(frozen=True)
class Classified:
    """labels: all of them, best first.  score: a probability; where the model gives a number, that number."""

    source: str | tuple[str, str]
    label: str
    score: float
    labels: tuple[Label, ...]

    def to_dict(self) -> dict[str, Any]:
        made = asdict(self)
        return made | {"source": list(self.source)} if isinstance(self.source, tuple) else made

    def __str__(self) -> str:
        return self.label

    def _repr_html_(self) -> str:
        return bars([(x.name, x.score) for x in self.labels])


@dataclass(frozen=True)
class Span:
    """source[start:end], which is `text`.  score: the mean probability of its tokens' tags."""

    start: int
    end: int
    text: str
    label: str
    score: float


@dataclass(frozen=True)
class Marked:
    """What was found in a text, in order."""

    source: str
    spans: tuple[Span, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """[Kim Jaewon]PS was born in [Seoul]LC."""
        return cut(self.source, self.spans, lambda s: f"[{s.text}]{s.label}", str)

    def _repr_html_(self) -> str:
        shown = cut(self.source, self.spans, _marked, escape)
        return f"<p>{shown}</p>"


@dataclass(frozen=True)
class Answer:
    """context[start:end], which is `text`.  score and no_answer: the probabilities of this span, and of there being none.

    `found`: is this span likelier than no answer (models that never saw unanswerable questions cannot tell)."""

    question: str
    text: str
    start: int
    end: int
    score: float
    no_answer: float
    context: str

    @property
    def found(self) -> bool:
        return self.score > self.no_answer

    def to_dict(self) -> dict[str, Any]:
        made = asdict(self)
        del made["context"]
        return made | {"found": self.found}

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        span = Span(self.start, self.end, self.text, f"{self.score:.2f}", self.score)
        shown = cut(self.context, (span,) if self.text else (), _marked, escape)
        return f"<p><b>{escape(self.question)}</b></p><p>{shown}</p>"


def cut(text: str, spans: tuple[Span, ...], show: Any, plain: Any) -> str:
    """The text with its spans shown one way and all else another."""
    made, at = [], 0
    for span in spans:
        made += [plain(text[at : span.start]), show(span)]
        at = span.end
    return "".join([*made, plain(text[at:])])


def _marked(span: Span) -> str:
    return f'<mark title="{span.score:.3f}">{escape(span.text)} <small>{escape(span.label)}</small></mark>'


def bars(rows: list[tuple[str, float]]) -> str:
    """A table of names and scores, as bars where they are probabilities."""
    shown = "".join(
        f"<tr><td>{escape(name)}</td><td>{score:.3f}</td>"
        f'<td><div style="background:#2178b4;height:.7em;width:{100 * min(max(score, 0), 1):.0f}px"></div></td></tr>'
        for name, score in rows
    )
    return f"<table>{shown}</table>"
