"""What reading a text gives: words for a gap, labels, spans, an answer.  Each prints, is a dict, and shows in a notebook."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Literal, Self


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How the texts were read that a model learned from: what `tag` and `classify` do unless they are told otherwise."""

    on: Literal["tokens", "words"] = "tokens"  # every token has a tag, or every word by its first
    agreed: bool = False  # tags are the likeliest in which every I-x continues a span of x; False: each token's own
    window: int = 0  # tokens of a window of a long text; 0: texts are whole
    stride: int = 0  # from the beginning of a window to that of the next; 0: they do not overlap
    longest: int = 0  # tokens, special ones too, at which `classify` cuts a text; 0: none is cut
    texts: Literal[0, 1, 2] = 0  # what has a label: 1, a text; 2, a pair of them; 0: nobody said


@dataclass(frozen=True)
class Guess:
    """A word for a gap.  score: its probability among all pieces of the vocabulary."""

    word: str
    token: str  # the piece as the vocabulary has it
    id: int
    score: float


@dataclass(frozen=True)
class Phrase:
    """Words for a gap, by an encoder-decoder.  score: the probability of the whole answer that has them."""

    word: str
    tokens: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class Filled:
    """gaps: the best guesses for each, best first; text: the source with the best in every gap.

    A BART writes the whole text again: its one gap is the text."""

    source: str
    text: str
    gaps: tuple[tuple[Guess | Phrase, ...], ...]

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

    @classmethod
    def ranked(
        cls, source: str | tuple[str, str], names: Sequence[str], scores: Sequence[float]
    ) -> Self:
        """From a score for each name, in the order of the names."""
        pairs = sorted(zip(names, scores, strict=True), key=lambda x: -x[1])
        labels = tuple(Label(name, score) for name, score in pairs)
        return cls(source, labels[0].name, labels[0].score, labels)

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


@dataclass(frozen=True)
class Detection:
    """A thing in a picture.  score: its probability; box: x0, y0, x1, y1 in pixels, which may pass the picture's edge."""

    label: str
    score: float
    box: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "score": round(self.score, 4),
            "box": [round(v, 2) for v in self.box],
        }

    def __str__(self) -> str:
        x0, y0, x1, y1 = (f"{v:.1f}" for v in self.box)
        return f"{self.label} {self.score:.3f} ({x0}, {y0}, {x1}, {y1})"


@dataclass(frozen=True)
class Detections(Sequence[Detection]):
    """What was found in a picture, surest first; a sequence of `Detection`."""

    source: str
    width: int
    height: int
    things: tuple[Detection, ...]

    def __len__(self) -> int:
        return len(self.things)

    def __getitem__(self, i: Any) -> Any:
        return self.things[i]

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "width": self.width,
            "height": self.height,
            "boxes": [d.to_dict() for d in self.things],
        }

    def __str__(self) -> str:
        return "\n".join(map(str, self.things))

    def _repr_html_(self) -> str:
        """In a notebook: the boxes as a drawing of their own, without the picture, and their probabilities."""
        W, H = self.width, self.height
        drawn = "".join(
            f'<rect x="{d.box[0]:.1f}" y="{d.box[1]:.1f}" width="{d.box[2] - d.box[0]:.1f}" '
            f'height="{d.box[3] - d.box[1]:.1f}" fill="none" stroke="#0072b2" '
            f'vector-effect="non-scaling-stroke" stroke-width="2"/>'
            f'<text x="{d.box[0]:.1f}" y="{d.box[1]:.1f}" font-size="{H / 16:.1f}">{escape(d.label)}</text>'
            for d in self.things
        )
        svg = f'<svg viewBox="0 0 {W} {H}" width="320" style="border:1px solid #999">{drawn}</svg>'
        return svg + bars([(d.label, d.score) for d in self.things])
