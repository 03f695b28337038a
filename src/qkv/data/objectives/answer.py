"""Extractive question answering: where in a context the answer begins and ends.

    [CLS] question [SEP] context [SEP]     label (first token, last token), or (0, 0): there is no answer here
          (Devlin et al. 2019, sections 4.2 and 4.3)

A long context becomes several rows, windows that move on by `stride` tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ..records import Record
from ..report import SkipReport
from ..stream import Encoder, Rows
from .base import Draw, Row, Specials
from .texts import Spans, encoded, ids_of, solid, some


@dataclass(frozen=True, kw_only=True)
class AnswerConfig:
    max_tokens: int = 384
    stride: int = 128  # how far a window moves on
    max_question: int = 64  # longer questions are cut at the end

    def __post_init__(self) -> None:
        if min(self.max_tokens, self.stride, self.max_question) < 1:
            raise ConfigError(
                f"max_tokens {self.max_tokens}, stride {self.stride} and max_question "
                f"{self.max_question} must be at least 1",
                fix="max_tokens = 384, stride = 128, max_question = 64",
            )


class Window(NamedTuple):
    """Row of example `example`: context tokens [begin, end)."""

    example: int
    begin: int
    end: int


@dataclass(frozen=True)
class Question:
    """context[start:end] answers it; (0, 0): nothing there does."""

    context: str
    start: int
    end: int
    place: str
    answers: tuple[str, ...] = ()


class Answers:
    """Questions with the windows of their contexts."""

    def __init__(
        self,
        config: AnswerConfig,
        asked: list[Question],
        questions: Rows,
        contexts: Rows,
        offsets: list[Spans],
        specials: Specials,
    ) -> None:
        self.config, self.asked, self.questions = config, asked, questions
        self.contexts, self.offsets, self.specials = contexts, offsets, specials
        longest = int(questions.lengths.max())
        if config.max_tokens - longest - specials.two.extra < 1:
            raise ConfigError(
                f"max_tokens = {config.max_tokens} has no room beside a question of {longest} tokens",
                fix="a larger max_tokens, or a smaller max_question",
                code="QKV-013",
            )
        self.windows = [w for i in range(len(asked)) for w in self._cut(i)]
        # of each example's answer, in its context; (0, -1) where there is none
        self.tokens = [
            token_span(q.context, spans, q.start, q.end)
            for q, spans in zip(asked, offsets, strict=True)
        ]

    def _cut(self, i: int) -> Iterable[Window]:
        n = int(self.contexts.lengths[i])
        room = self.config.max_tokens - int(self.questions.lengths[i]) - self.specials.two.extra
        begin = 0
        while begin + room < n:
            yield Window(i, begin, begin + room)
            begin += min(self.config.stride, room)
        yield Window(i, begin, n)

    @property
    def lengths(self) -> NDArray[np.int64]:
        asked = self.questions.lengths
        made = [int(asked[w.example]) + w.end - w.begin for w in self.windows]
        n = np.array(made, dtype=np.int64) + self.specials.two.extra
        return np.stack([n, n], axis=1)

    def row(self, i: int, draw: Draw) -> Row:
        w = self.windows[i]
        question = np.array(self.questions[w.example], dtype=np.int64)
        context = np.array(self.contexts[w.example][w.begin : w.end], dtype=np.int64)
        ids, segment, at = self.specials.two(question, context)
        return Row(ids, segment=segment, label=self._label(w, at))

    def _label(self, w: Window, at: int) -> tuple[int, int]:
        """The tokens that share a character with the answer, where all of them are in the window."""
        first, last = self.tokens[w.example]
        inside = w.begin <= first <= last < w.end
        return (at + first - w.begin, at + last - w.begin) if inside else (0, 0)

    def characters(self, i: int, first: int, last: int) -> tuple[int, int] | None:
        """The characters of row i's tokens first … last in its context; None where that is no span of the context."""
        w = self.windows[i]
        at = self.context_at(i)
        a, b = first - at + w.begin, last - at + w.begin
        if not w.begin <= a <= b < w.end:
            return None
        spans, context = self.offsets[w.example], self.asked[w.example].context
        return solid(context, (spans[a][0], spans[b][1]))

    def context_at(self, i: int) -> int:
        """Where the context begins in row i."""
        question = np.array(self.questions[self.windows[i].example], dtype=np.int64)
        return self.specials.two(question, np.empty(0, np.int64))[2]


def token_span(text: str, offsets: Spans, start: int, end: int) -> tuple[int, int]:
    """The first and last token that share a solid character with text[start:end]; (0, -1) where none does."""
    spans = [solid(text, span) for span in offsets]
    hit = [i for i, (a, b) in enumerate(spans) if a < end and b > start and a < b]
    return (hit[0], hit[-1]) if hit else (0, -1)


def answers(
    config: AnswerConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Answers:
    """Records with "context", "question" and "answers": [{"text", "answer_start"}], empty where there is none; or, as the
    Hub has them, {"text": […], "answer_start": […]}.

    The first answer is learned.  One that does not stand where it should is counted as "answer not there"."""
    asked, questions, contexts, offsets = [], [], [], []
    for record, made in encoded(records, ["question", "context"], tokenizer, report):
        found = _question(record)
        question, context = ids_of(made[0]), ids_of(made[1])
        if found is None or not len(question) or not len(context):
            reason = "answer not there" if found is None else "no tokens"
            report.drop(record.place, reason, record.lines)
            continue
        report.shortened += len(question) > config.max_question
        asked.append(found)
        questions.append(question[: config.max_question])
        contexts.append(context)
        offsets.append(made[1].offsets)
    some(asked, report)
    return Answers(config, asked, Rows.of(questions), Rows.of(contexts), offsets, specials)


def _question(record: Record) -> Question | None:
    context, found = record.values["context"], listed(record.values.get("answers"))
    if not isinstance(found, list) or not all(_stands(context, a) for a in found):
        return None
    if not found:
        return Question(context, 0, 0, record.place)
    start = found[0]["answer_start"]
    a, b = solid(context, (start, start + len(found[0]["text"])))
    return Question(context, a, b, record.place, tuple(x["text"] for x in found))


def listed(found: Any) -> Any:
    """Answers as a list of objects, where an object of two lists holds them."""
    if not isinstance(found, dict):
        return found
    texts, starts = found.get("text"), found.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return found
    return [{"text": a, "answer_start": b} for a, b in zip(texts, starts, strict=True)]


def _stands(context: str, answer: Any) -> bool:
    if not isinstance(answer, dict):
        return False
    text, start = answer.get("text"), answer.get("answer_start")
    if not isinstance(text, str) or type(start) is not int or not text.strip():
        return False
    return start >= 0 and context[start : start + len(text)] == text


def spans_of(task: Answers, predicted: Sequence[tuple[int, int]]) -> list[list[str]]:
    """What each example's windows predict, as texts; "" where a window has no answer."""
    made: list[list[str]] = [[] for _ in task.asked]
    for i, (first, last) in enumerate(predicted):
        example = task.windows[i].example
        span = task.characters(i, first, last)
        made[example].append("" if span is None else task.asked[example].context[slice(*span)])
    return made
