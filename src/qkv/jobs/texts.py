"""Objectives on texts: language models, masked words, classes, numbers, tags, answers, neighbours."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.objectives import OBJECTIVES, Specials, evaluation, feed
from ..data.objectives.answer import Answers, spans_of
from ..data.objectives.chat import ChatTemplate
from ..data.objectives.classify import ClassifyConfig, Labelled
from ..data.objectives.feed import Task
from ..data.objectives.following import Following
from ..data.objectives.tag import TagConfig, Tagged
from ..data.records import Record, RecordSource, read_records
from ..data.report import SkipReport
from ..errors import ConfigError, named
from ..learn import measure, scores
from ..learn.loop import Stream, Validate
from ..learn.terms import term_loss, terms_of
from ..model import Model
from ..models.interface import Predictions
from ..readings import Habits
from ..recipe import Recipe
from ..shapes import Batch
from ..text import AnyTokenizer, TextConfig
from ..text import train as train_tokenizer
from .pairs import parted
from .settings import special_ids

BUDGET = 8192  # tokens of a batch when measuring
# the head an objective trains, where a family has a choice of heads
HEADS = {
    "mlm": "mlm",
    "nsp": "pretraining",
    "classify": "classes",
    "regress": "classes",
    "tag": "tags",
    "answer": "span",
    "contrast": "none",
}

# where an objective trains writing: does the net continue its source, or answer it; and a family that does so
WRITES = {
    "translate": (False, "transformer"),
    "lm": (True, "gpt2"),
    "windows": (True, "gpt2"),
    "chat": (True, "gpt2"),
    "spans": (False, "t5"),
    "infill": (False, "bart"),
}

# tokens a tokenizer is trained with, where [text] names none
SPECIALS = {
    "mlm": ("<mask>",),
    "nsp": ("<mask>",),
    "infill": ("<mask>",),
    "spans": tuple(f"<extra_id_{i}>" for i in range(100)),
}


@dataclass
class TextsJob:
    """Encoded examples of an objective, the tokenizer, and what was skipped."""

    recipe: Recipe
    train: Task
    dev: Task
    tokenizer: AnyTokenizer
    report: SkipReport
    dev_report: SkipReport
    leak: int
    written: list[dict[str, Any]] = field(default_factory=list)
    processor: None = None

    @classmethod
    def read(cls, recipe: Recipe, tokenizer: AnyTokenizer | None = None) -> "TextsJob":
        report, dev_report = SkipReport(), SkipReport()
        records = list(read_records(recipe.data.train, report))
        if recipe.data.dev is None:
            records, dev = parted(records, _key, recipe)
        else:
            dev = list(read_records(recipe.data.dev, dev_report))
        complete(records, recipe)
        if tokenizer is None:
            texts = (s for r in records for s in strings(r))
            tokenizer = train_tokenizer(texts, with_specials(recipe))
        specials = Specials.of(tokenizer)
        source, build = recipe.data.train, OBJECTIVES[recipe.objective_kind].build
        with named(source.path):
            train = build(recipe.objective_config(), records, tokenizer, specials, report)
        _sampled(train, recipe, tokenizer)
        kept = dev_report if recipe.data.dev else report
        # train.config: the classes are those of train, whatever dev holds
        with named(recipe.data.dev.path if recipe.data.dev else f"{source.path}, the part for dev"):
            made = build(train.config, dev, tokenizer, specials, kept)
        leak = len({_key(r) for r in records} & {_key(r) for r in dev})
        return cls(recipe, train, made, tokenizer, report, dev_report, leak)

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.train.lengths), len(self.dev.lengths)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(int(task.lengths.max(initial=0)) for task in (self.train, self.dev))

    @property
    def settings(self) -> dict[str, Any]:
        kind, config = self.recipe.objective_kind, self.train.config
        made = special_ids(self.tokenizer)
        if kind in HEADS:
            made["head"] = HEADS[kind]
        if kind == "classify":
            made["labels"] = config.classes
        elif kind == "tag":
            made["labels"] = config.labels
        elif kind == "regress":
            made |= {"labels": ("value",), "problem": "value"}
        return made

    @property
    def template(self) -> ChatTemplate | None:
        return getattr(self.train.config, "template", None)

    @property
    def habits(self) -> Habits:
        config = self.train.config
        if isinstance(config, TagConfig):
            return Habits(on=config.on, agreed=True)
        if isinstance(self.train, Following):
            return Habits(texts=2)
        if isinstance(self.train, Labelled):
            texts: Literal[1, 2] = 1 if self.train.second is None else 2
            made = Habits(texts=texts, longest=config.max_tokens)
            read = isinstance(config, ClassifyConfig)
            return replace(made, window=config.window, stride=config.stride) if read else made
        return Habits()

    def stream(self) -> Stream:
        return feed(self.train, self.recipe.train.batch_tokens, self.recipe.seed)

    def remarks(self, config: Any) -> Sequence[str]:
        return ()

    def samples(self) -> list[dict[str, Any]]:
        return self.written

    def validation(self, model: Model) -> Validate:
        """The loss over all of dev, and what the objective is measured by."""

        def measured(net: torch.nn.Module, step: int) -> dict[str, float]:
            metrics = self.losses(net)
            extra = SCORES.get(self.recipe.objective_kind)
            return metrics | ({} if extra is None else extra(net, self.dev))

        return measured

    @torch.inference_mode()
    def losses(self, net: Any) -> dict[str, float]:
        """dev/loss: the sum of the terms' means; each by its name where there are several."""
        total: dict[str, float] = {}
        count: dict[str, int] = {}
        tokens = False
        for batch in batches(net, self.dev):
            for term in terms_of(net.loss_inputs(batch)):
                made = term_loss(term)
                total[term.name] = total.get(term.name, 0.0) + float(made.nll)
                count[term.name] = count.get(term.name, 0) + made.tokens
                tokens |= isinstance(term, Predictions) and term.per == "token"
        means = {name: total[name] / max(count[name], 1) for name in total}
        metrics = {"dev/loss": sum(means.values())}
        if len(means) > 1:
            metrics |= {f"dev/loss/{name}": mean for name, mean in means.items()}
        elif tokens:
            (name,) = means
            metrics["dev/perplexity"] = measure.perplexity(total[name], count[name])
        return metrics


def _sampled(task: Task, recipe: Recipe, tokenizer: AnyTokenizer) -> None:
    """Sub-word sampling while training, where the objective can: the labels of tokens and spans stand on one cut."""
    if not (alpha := recipe.text.sample_alpha):
        return
    if not isinstance(task, Labelled):
        raise ConfigError(
            f"text.sample_alpha = {alpha} with the objective {recipe.objective_kind!r}, which cuts a text once",
            fix="text.sample_alpha = 0; classify, regress and translation can sample",
            code="QKV-013",
        )
    task.sampled(tokenizer, alpha)


def measure_file(recipe: Recipe, model: Model, source: RecordSource) -> dict[str, Any]:
    """What the objective measures, of a trained model on another file: {"examples", "skipped", "places", "scores"}."""
    kind, config, report = recipe.objective_kind, recipe.objective_config(), SkipReport()
    if kind == "classify":  # the classes are the model's, whatever the file holds
        config = replace(config, classes=model.config.labels)
    elif kind == "tag":
        kinds = dict.fromkeys(name[2:] for name in model.config.labels if name != "O")
        config = replace(config, kinds=tuple(kinds))
    specials = Specials.of(model.tokenizer)
    records = read_records(source, report)
    task = OBJECTIVES[kind].build(config, records, model.tokenizer, specials, report)
    job = TextsJob(recipe, task, task, model.tokenizer, report, report, 0)
    found = job.validation(model)(model.net, 0)
    return {
        "examples": examples(task),
        **report.left_out(),
        "scores": {name.removeprefix("dev/"): value for name, value in found.items()},
    }


def examples(task: Task) -> int:
    """How many of what a person gave were measured: documents, questions and texts, not the windows they are read in."""
    if isinstance(task, Labelled):
        return task.documents
    if isinstance(task, Answers):
        return len(task.asked)
    return len(task.marked if isinstance(task, Tagged) else task.lengths)


def with_specials(recipe: Recipe) -> TextConfig:
    """[text] with the special tokens its objective cannot do without."""
    needed = SPECIALS.get(recipe.objective_kind, ())
    return replace(recipe.text, specials=recipe.text.specials or needed)


def _key(record: Record) -> str:
    return "\n".join(strings(record))


def complete(records: Sequence[Record], recipe: Recipe) -> None:
    """Raises ConfigError QKV-015 where the objective wants a field that no column was named for."""
    kind, held = recipe.objective_kind, set(records[0].values if records else ())
    for wanted in OBJECTIVES[kind].fields if records else ():
        either = wanted.split("|")
        if not held & set(either):
            raise ConfigError(
                f"objective.kind = {kind!r} needs {' or '.join(either)}; data.train has {', '.join(sorted(held))}",
                place=records[0].place,
                fix=f'name its column: [data.train] fields = {{ {either[-1]} = "…" }}',
                code="QKV-015",
            )


def strings(value: Any) -> Iterator[str]:
    """The texts of a record, at any depth; not its labels."""
    if isinstance(value, Record):
        learned = (v for k, v in value.values.items() if k not in ("label", "tags", "spans"))
        yield from strings(list(learned))
    elif isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings([v for k, v in value.items() if k != "role"])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings(item)


def batches(net: Any, task: Task) -> Iterator[Batch]:
    device = next(net.parameters()).device
    for batch in evaluation(task, BUDGET):
        yield batch.to(device)


# -- what each objective is measured by ------------------------------------------------------------------


def each_row(
    net: Any, task: Task, answer: Callable[[Batch], Iterable[Any]]
) -> tuple[list[Any], list[Any]]:
    """(answers, labels) of every example, in order."""
    n = len(task.lengths)
    found: list[Any] = [None] * n
    labels: list[Any] = [None] * n
    for batch in batches(net, task):
        index = range(len(batch)) if batch.index is None else batch.index.tolist()
        given = [None] * len(batch) if batch.label is None else batch.label.tolist()
        for i, value, label in zip(index, answer(batch), given, strict=True):
            found[i], labels[i] = value, label
    return found, labels


@torch.inference_mode()
def class_scores(net: Any, task: Task) -> dict[str, float]:
    owner: Any = getattr(task, "owner", None)
    if owner is None:
        found, right = each_row(net, task, lambda b: net.logits(b).argmax(-1).tolist())
    else:
        rows, labels = each_row(net, task, lambda b: net.logits(b).double().tolist())
        found, right = pooled(rows, owner).argmax(1).tolist(), pooled(labels, owner).tolist()
    return {
        "dev/accuracy": scores.accuracy(found, right),
        "dev/f1": scores.macro_f1(found, right),
    }


def pooled(rows: list[Any], owner: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean over the windows of each document; owner counts documents from 0 without gaps."""
    made = np.array(rows, dtype=np.float64)
    begins = np.searchsorted(owner, np.arange(int(owner[-1]) + 1))
    many = np.bincount(owner).reshape(-1, *[1] * (made.ndim - 1))
    means: NDArray[np.float64] = np.add.reduceat(made, begins) / many
    return means


@torch.inference_mode()
def value_scores(net: Any, task: Task) -> dict[str, float]:
    found, right = each_row(net, task, lambda b: net.logits(b).flatten().tolist())
    return {
        "dev/pearson": scores.pearson(found, right),
        "dev/spearman": scores.spearman(found, right),
    }


@torch.inference_mode()
def tag_scores(net: Any, task: Task) -> dict[str, float]:
    if not isinstance(task, Tagged):
        raise TypeError("tags are of tagged texts")
    found, _ = each_row(net, task, lambda b: net.logits(b).float().softmax(-1).cpu().numpy())
    right = [marks for _, marks in task.marked]
    return {f"dev/{k}": v for k, v in scores.spans(task.spans(found), right).items()}


@torch.inference_mode()
def answer_scores(net: Any, task: Task) -> dict[str, float]:
    """Each window names its best span, or none; of a question's windows the surest span is the answer."""
    if not isinstance(task, Answers):
        raise TypeError("answers are to questions")
    found, _ = each_row(net, task, lambda b: best_spans(net.logits(b), b.keep, b.segment))
    texts = spans_of(task, [(first, last) for first, last, _ in found])
    sure: list[list[float]] = [[] for _ in task.asked]
    for window, (_, _, margin) in zip(task.windows, found, strict=True):
        sure[window.example].append(margin)
    chosen = [text[int(np.argmax(s))] for text, s in zip(texts, sure, strict=True)]
    right = [q.answers or ((q.context[q.start : q.end],) if q.end else ()) for q in task.asked]
    return {f"dev/{k}": v for k, v in scores.answers(chosen, right).items()}


def best_spans(
    logits: Tensor, keep: Tensor, segment: Tensor | None, longest: int = 32
) -> list[tuple[int, int, float]]:
    """(first, last, score - score of no answer) of every row; logits (B, S, 2), a span has at most `longest` tokens."""
    may = keep if segment is None else keep & (segment == segment.amax(1, keepdim=True))
    first, last = logits.float().masked_fill(~may[..., None], -torch.inf).unbind(-1)
    S = first.shape[1]
    at = torch.arange(S, device=first.device)
    apart = at[None] - at[:, None]
    pair = first[:, :, None] + last[:, None]  # (B, S, S)
    pair = pair.masked_fill((apart < 0) | (apart >= longest), -torch.inf)
    score, place = pair.flatten(1).max(1)
    nothing = logits[:, 0].float().sum(-1)  # the first token stands for no answer
    rows = zip(place.tolist(), (score - nothing).tolist(), strict=True)
    return [(p // S, p % S, m) if m > 0 else (0, 0, m) for p, m in rows]


@torch.inference_mode()
def neighbour_scores(net: Any, task: Task) -> dict[str, float]:
    def both(b: Batch) -> Iterable[Any]:
        if b.target is None or b.target_keep is None:
            raise ConfigError("neighbours come in pairs", fix="give text and pair")
        a, c = net.encode(Batch(b.source, b.keep)), net.encode(Batch(b.target, b.target_keep))
        said = zip(told(b.source, b.keep), told(b.target, b.target_keep), strict=True)
        return zip(a.mean.tolist(), c.mean.tolist(), said, strict=True)

    found, same = each_row(net, task, both)
    a, b = (np.array([row[i] for row in found]) for i in (0, 1))
    texts = [said for _, _, said in found]
    return {"dev/recall@1": scores.recall_at_1(a, b, same, texts)}


def told(ids: Tensor, keep: Tensor) -> list[tuple[int, ...]]:
    """The ids of each row without its padding."""
    return [tuple(row[own].tolist()) for row, own in zip(ids, keep, strict=True)]


SCORES: dict[str, Callable[[Any, Task], dict[str, float]]] = {
    "classify": class_scores,
    "regress": value_scores,
    "tag": tag_scores,
    "answer": answer_scores,
    "contrast": neighbour_scores,
}
