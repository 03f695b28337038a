"""Ask an encoder about texts: classify, tag, answer, embed (gaps.py: fill).  One in, one out; list in, list out.

Rows are batched with rows of the same padded length, so that none depends on its neighbours (law 2)."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .data.objectives import Specials
from .data.objectives.classify import windowed
from .data.objectives.tag import agreed, marks, speaking
from .data.objectives.texts import fitted, solid
from .errors import ConfigError, DataError, QkvError, UsageError
from .model import MULTIPLE, Model
from .models.encoder import Problem
from .readings import Answer, Classified, Marked, Span
from .shapes import Batch, pad

Pair = tuple[str, str]
Pooling = Literal["mean", "cls", "pooled"]
# tokens of a batch: on a CPU as many as matrix kernels are known to treat alike (docs/results.md)
TOKENS = {"cpu": 1024}
MANY = 16384
FOLLOWS = ("follows", "does not follow")


class Row(NamedTuple):
    """A text or a pair in its frame; `at`: where the last text begins."""

    ids: list[int]
    segments: list[int]
    at: int


# ---- rows and batches


def framed(specials: Specials, a: Sequence[int], b: Sequence[int] | None = None) -> Row:
    template = specials.one if b is None else specials.two
    ids, segments, at = template(a, b)  # type: ignore[arg-type]
    return Row(ids.tolist(), segments.tolist(), at)


def ask(
    model: Model,
    rows: Sequence[Row],
    question: Callable[[Batch], Sequence[Any]],
    texts: Sequence[int] | None = None,
) -> list[Any]:
    """question(batch) has one answer a row; all of them, in the order of `rows`.

    texts: of each row the number of its text, where a text has several.
    Raises DataError QKV-037 for a row that the model's positions do not hold."""
    most = getattr(model.net, "max_positions", None)
    for i, row in enumerate(rows):
        if most is not None and len(row.ids) > most:
            raise DataError(
                f"text {i if texts is None else texts[i]} has {len(row.ids)} tokens, the model has {most} positions",
                fix="cut it into pieces (classify and answer read a long text in windows)",
                code="QKV-037",
            )
    found: list[Any] = [None] * len(rows)
    for chosen in batched(rows, TOKENS.get(model.device.type, MANY)):
        ids, keep = pad([rows[i].ids for i in chosen], model.pad_id, MULTIPLE)
        segment, _ = pad([rows[i].segments for i in chosen], 0, MULTIPLE)
        batch = Batch(ids, keep, segment=segment).to(model.device)
        for i, answer in zip(chosen, question(batch), strict=True):
            found[i] = answer
    return found


def with_marks(batch: Batch, marked: Sequence[int] | None) -> Batch:
    """The batch with these places of every row as its global tokens; places beyond a text mark nothing."""
    if marked is None:
        return batch
    here = torch.arange(batch.source.shape[1], device=batch.source.device)
    chosen = torch.isin(here, torch.tensor(places(marked), dtype=torch.long, device=here.device))
    return replace(batch, marked=chosen & batch.keep)


def places(marked: Any) -> list[int]:
    """Places counted from 0.  Raises DataError QKV-033 for anything else."""
    made = marked.tolist() if isinstance(marked, (Tensor, np.ndarray)) else marked
    made = list(made) if isinstance(made, Iterable) else [None]
    if not all(isinstance(i, (int, np.integer)) and type(i) is not bool and i >= 0 for i in made):
        raise DataError(
            f"marked = {str(marked)[:60]} are no places of tokens",
            fix="whole numbers from 0: marked=[0, 7]",
            code="QKV-033",
        )
    return made


def batched(rows: Sequence[Row], tokens: int) -> Iterator[list[int]]:
    """Numbers of rows of one padded length, as many as `tokens` has room for."""
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_length.setdefault(-(-len(row.ids) // MULTIPLE) * MULTIPLE, []).append(i)
    for length, members in sorted(by_length.items()):
        n = max(1, tokens // length)
        yield from (members[at : at + n] for at in range(0, len(members), n))


def headed(model: Model, verb: str, *kinds: str) -> Any:
    """The net.  Raises UsageError where its head cannot do this."""
    kind = getattr(getattr(model.net, "head", None), "kind", None)
    if kind not in kinds:
        raise UsageError(
            f"{verb} needs a model with a head {' or '.join(kinds)}; this one is"
            f" {model.family}{'' if kind is None else f' with head {kind!r}'}",
            fix="load a model that was trained for it",
        )
    return model.net


def strings(texts: Any, what: str = "text") -> list[str]:
    """One or several, as a list.  Raises DataError for what is no text."""
    made = [texts] if isinstance(texts, str) else list(texts)
    for i, text in enumerate(made):
        if not isinstance(text, str):
            raise DataError(
                f"{what} {i} is {type(text).__name__}, not str", fix="pass strings", code="QKV-033"
            )
    return made


def sound(x: Tensor) -> Tensor:
    """x itself.  Raises QkvError QKV-075 where the model's numbers are not finite."""
    if not bool(x.isfinite().all()):
        raise QkvError(
            "the model's answer holds numbers that are not finite",
            fix="look at its training: qkv runs; or load it in float32",
            code="QKV-075",
        )
    return x


def scored(z: Tensor, problem: Problem) -> Tensor:
    """The logits of labels (…, n) as probabilities, or as they are where the labels are numbers."""
    if problem == "value":
        return z
    return z.sigmoid() if problem == "many" else z.softmax(-1)


def positive(**values: int) -> None:
    """Raises ConfigError QKV-012 for a number below 1."""
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1 (got {value})", fix=f"try {name}=5")


# ---- classify


@torch.inference_mode()
def classify(
    model: Model,
    texts: str | Pair | Sequence[str | Pair],
    window: int | None = None,
    stride: int | None = None,
    marked: Sequence[int] | None = None,
) -> Any:
    """A label with its probability, and all others; or the number that the model was trained to give.

    str -> Classified, list -> list; a tuple of two strings is one pair of texts.  A text of more than `window` tokens is
    read in windows of that many, which begin every `stride` tokens (0: they do not overlap), and has their mean logits.  None: as the model was trained.
    Where it learned from texts cut at a length, longer ones are cut there too, and a UserWarning says how many."""
    net = headed(model, "classify", "classes", "nsp", "pretraining")
    one = isinstance(texts, (str, tuple))
    given: list[Any] = [texts] if one else list(texts)
    specials = Specials.of(model.tokenizer)
    window, stride = _habit(model, window, stride, specials.one.extra)
    made = [_pieces(model, specials, text, i, window, stride) for i, text in enumerate(given)]
    pieces = [own for own, _ in made]
    if cut := sum(short for _, short in made):
        seen = f"{cut} of {len(given)} texts cut at {model.habits.longest} tokens, as in training"
        warnings.warn(f"{seen}; a window reads all of a text", stacklevel=3)
    rows = [row for own in pieces for row in own]
    names = model.config.labels if net.head.kind == "classes" else FOLLOWS
    problem: Problem = net.head.problem if net.head.kind == "classes" else "one"

    def question(batch: Batch) -> Sequence[Tensor]:
        return list(sound(net.labelled(net.encode(with_marks(batch, marked)))).float().cpu())

    owners = [i for i, own in enumerate(pieces) for _ in own]
    found, answers = iter(ask(model, rows, question, owners)), []
    for text, own in zip(given, pieces, strict=True):
        z = torch.stack([next(found) for _ in own]).mean(0)
        answers.append(Classified.ranked(text, names, scored(z, problem).tolist()))
    return answers[0] if one else answers


def _habit(model: Model, window: int | None, stride: int | None, extra: int) -> tuple[int, int]:
    """Window and stride; what is None as the model was trained, its stride where that fits into the window.

    Raises UsageError for a stride without a window."""
    own = model.habits
    if window is None:
        window = own.window
        stride = own.stride if stride is None else stride
    elif stride is None:
        stride = own.stride if own.window and own.stride <= window - extra else 0
    if stride and not window:
        raise UsageError(
            f"stride = {stride}, and no window", fix=f"give one: window = {max(2 * stride, 128)}"
        )
    return window, stride


def _pieces(
    model: Model, specials: Specials, text: Any, i: int, window: int, stride: int
) -> tuple[list[Row], bool]:
    """A text as one row, or as its windows; was it cut?"""
    tok, pair = model.tokenizer, isinstance(text, tuple) and len(text) == 2
    if model.habits.texts == (1 if pair else 2):
        raise UsageError(
            f"text {i} is {'a pair' if pair else 'one text'}, the model learned from {'single texts' if pair else 'pairs'}",
            fix="pass a string"
            if pair
            else "pass (text, pair); on the command line a tab parts them",
        )
    if min(window, stride) < 0 or window and (pair or window <= specials.one.extra):
        raise ConfigError(
            f"window = {window}, stride = {stride}" + (" for a pair of texts" if pair else ""),
            fix="a window of one text, of more tokens than the special ones around it",
        )
    if pair:
        a, b = strings(text, f"text {i}, part")
        return _cut(model, specials, tok.encode(a).ids, tok.encode(b).ids)
    if not isinstance(text, str):
        raise DataError(
            f"text {i} is {type(text).__name__}, not str", fix="pass strings", code="QKV-033"
        )
    ids, longest = tok.encode(text).ids, model.habits.longest - specials.one.extra
    if not window:
        return _cut(model, specials, ids)
    cut = window == model.habits.window and 0 < longest < len(ids)  # as it was trained
    ids, room = ids[:longest] if cut else ids, window - specials.one.extra
    spans = windowed(len(ids), room, min(stride or room, room))
    return [framed(specials, ids[begin:end]) for begin, end in spans], cut


def _cut(
    model: Model, specials: Specials, a: Sequence[int], b: Sequence[int] | None = None
) -> tuple[list[Row], bool]:
    """One row, no longer than those of training; did it have to be cut?"""
    template = specials.one if b is None else specials.two
    n, room = len(a) + len(b or ()), model.habits.longest - template.extra
    if not model.habits.longest or n <= room:
        return [framed(specials, a, b)], False
    first, second = fitted(np.array(a), np.array(b or (), dtype=np.int64), room)
    return [framed(specials, first.tolist(), None if b is None else second.tolist())], True


# ---- tag


@torch.inference_mode()
def tag(
    model: Model, texts: str | Sequence[str], on: Literal["tokens", "words"] | None = None
) -> Any:
    """The spans that a text's tags mark, with their characters.  str -> Marked, list -> list.

    `on`: each token by itself, or each word between white space by its first token; None: as the model was trained.  A text
    longer than the model's positions is read in pieces."""
    net, tok = headed(model, "tag", "tags"), model.tokenizer
    given, specials, on = strings(texts), Specials.of(tok), on or model.habits.on
    encoded = [tok.encode(text) for text in given]
    most = getattr(net, "max_positions", None)
    room = max(1, most - specials.one.extra) if most else max(map(len, encoded), default=1) or 1
    pieces = [
        (t, framed(specials, e.ids[at : at + room]), len(e.ids[at : at + room]))
        for t, e in enumerate(encoded)
        for at in range(0, len(e.ids), room)
    ]

    def question(batch: Batch) -> Sequence[Tensor]:
        p = sound(net.logits(batch)).float().softmax(-1).cpu()
        return list(p)

    found: list[list[Any]] = [[] for _ in given]
    rows = [row for _, row, _ in pieces]
    for (t, row, n), p in zip(pieces, ask(model, rows, question), strict=True):
        found[t].append(p[row.at : row.at + n].numpy())
    names = [bio(name) for name in model.config.labels]
    how = agreed if model.habits.agreed else likeliest
    made = []
    for text, encoding, parts in zip(given, encoded, found, strict=True):
        said, places = speaking(text, encoding.offsets, on)
        p = np.concatenate(parts)[said] if said else np.empty((0, len(names)), np.float32)
        made.append(_marked(text, places, p, how(p, names), names))
    return made[0] if isinstance(texts, str) else made


def likeliest(p: Any, names: Sequence[str]) -> list[int]:
    """Each token's own likeliest label, as published taggers are read."""
    chosen: list[int] = p.argmax(-1).tolist()
    return chosen


def bio(name: str) -> str:
    """Other ways to write tags as B-x, I-x and O: x alone, and the ends and singles of BIOES and BILOU."""
    front, dash, kind = name.partition("-")
    if name == "O" or front in ("B", "I") and dash:
        return name
    if front in ("E", "L", "S", "U") and dash:
        return f"{'I' if front in 'EL' else 'B'}-{kind}"
    return f"I-{name}"


def _marked(
    text: str, places: list[tuple[int, int]], p: Any, chosen: list[int], names: list[str]
) -> Marked:
    """The spans of the tags chosen; the score of one is the mean probability of its tags."""
    spans = []
    for start, end, kind in marks([names[k] for k in chosen], places):
        inside = [i for i, (a, b) in enumerate(places) if start <= a < b <= end]
        score = sum(float(p[i, chosen[i]]) for i in inside) / len(inside)
        spans.append(Span(start, end, text[start:end], kind, score))
    return Marked(text, tuple(spans))


# ---- answer


@torch.inference_mode()
def answer(
    model: Model,
    questions: str | Sequence[str],
    contexts: str | Sequence[str],
    *,
    longest: int = 32,
    window: int = 384,
    stride: int = 128,
) -> Any:
    """The span of the context that answers the question, of at most `longest` tokens.  str -> Answer, list -> list.

    A context that does not fit into `window` tokens is read in windows that move on by `stride`.  A span's score is
    z = s_first + e_last, that of no answer z_0 = s_1 + e_1 of the first token (Devlin et al. 2019, section 4.3); over
    windows z is the largest and z_0 the smallest; probabilities are their softmax over all spans and no answer."""
    positive(longest=longest, window=window, stride=stride)
    net, tok = headed(model, "answer", "span"), model.tokenizer
    asked, texts = strings(questions, "question"), strings(contexts, "context")
    if isinstance(contexts, str):
        texts = texts * len(asked)
    if len(asked) != len(texts):
        raise DataError(
            f"{len(asked)} questions and {len(texts)} contexts",
            fix="give each question its context, or one context for all",
        )
    specials, most = Specials.of(tok), getattr(net, "max_positions", None)
    window = window if most is None else min(window, most)
    read = [tok.encode(text) for text in texts]
    rows: list[Row] = []
    places: list[tuple[int, int, int]] = []  # of each row: question, first context token, end
    for i, (question_, context) in enumerate(zip(asked, read, strict=True)):
        ids = tok.encode(question_).ids
        for begin, end in _windows(
            len(context.ids), window - len(ids) - specials.two.extra, stride, i
        ):
            rows.append(framed(specials, ids, context.ids[begin:end]))
            places.append((i, begin, end))

    def question(batch: Batch) -> Sequence[Tensor]:
        z = sound(net.logits(batch)).double().cpu()
        return list(z)

    seen: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in asked]
    for row, (i, begin, end), z in zip(rows, places, ask(model, rows, question), strict=True):
        seen[i].append((begin, z[row.at : row.at + end - begin], z[0]))
    made = [
        _answer(q, text, e.offsets, found, longest)
        for q, text, e, found in zip(asked, texts, read, seen, strict=True)
    ]
    return made[0] if isinstance(questions, str) else made


def _windows(n: int, room: int, stride: int, i: int) -> Iterator[tuple[int, int]]:
    """[begin, end) over n tokens.  Raises DataError where there is no room for any."""
    if room < 1:
        raise DataError(
            f"question {i} leaves no room for its context", fix="shorten it", code="QKV-037"
        )
    begin = 0
    while begin + room < n:
        yield begin, begin + room
        begin += min(stride, room)
    if n:
        yield begin, n


def _answer(
    question: str,
    context: str,
    offsets: list[tuple[int, int]],
    seen: list[tuple[int, Tensor, Tensor]],
    longest: int,
) -> Answer:
    """seen: of each window its first token, scores (n, 2) of its tokens, and those of the row's first token."""
    if not seen:
        return Answer(question, "", 0, 0, 0.0, 1.0, context)
    z = torch.full((len(offsets), longest), -torch.inf, dtype=torch.float64)
    for begin, scores, _ in seen:
        for more in range(min(longest, len(scores))):
            made = scores[: len(scores) - more, 0] + scores[more:, 1]
            own = z[begin : begin + len(made), more]
            torch.maximum(own, made, out=own)
    nothing = torch.stack([first.sum() for _, _, first in seen]).min()
    total = torch.cat([z.flatten(), nothing[None]]).logsumexp(0)
    first, more = divmod(int(z.argmax()), longest)
    start, end = solid(context, (offsets[first][0], offsets[first + more][1]))
    score, none = float((z.max() - total).exp()), float((nothing - total).exp())
    return Answer(question, context[start:end], start, end, score, none, context)


# ---- embed


@torch.inference_mode()
def embed(
    model: Model,
    texts: str | Sequence[str],
    pooling: Pooling = "mean",
    normalize: bool = False,
    marked: Sequence[int] | None = None,
) -> Tensor:
    """One vector a text, (C) or (N, C): the mean of its states, that of the first token, or what the family pools.

    normalize: of length 1, so that a dot product is a cosine."""
    given, tok, net = strings(texts), model.tokenizer, model.net
    if getattr(getattr(net, "head", None), "kind", None) is None:  # no encoder alone: its own ends
        rows = [Row(ids, [0] * len(ids), 0) for ids in map(model.ids, given)]
    else:
        specials = Specials.of(tok)
        rows = [framed(specials, tok.encode(text).ids) for text in given]
    if pooling not in ("mean", "cls", "pooled"):
        raise UsageError(f"pooling = {pooling!r} is unknown", fix="mean, cls or pooled")

    def question(batch: Batch) -> Sequence[Tensor]:
        memory = net.encode(with_marks(batch, marked))  # type: ignore[operator]
        made = {"mean": lambda: memory.mean, "cls": lambda: memory.states[:, 0]}
        return list(sound(made.get(pooling, lambda: memory.summary)()).cpu())

    found = ask(model, rows, question)
    out = torch.stack(found) if found else torch.empty(0, model.config.d_model)
    out = F.normalize(out, dim=-1) if normalize else out
    return out[0] if isinstance(texts, str) else out
