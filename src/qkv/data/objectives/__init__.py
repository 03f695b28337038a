"""What a model learns from texts: each objective turns records into rows, a pure function of (seed, epoch, example).

records -> OBJECTIVES[name].build(config, records, tokenizer, specials, report) -> task
feed(task, budget, seed).batch(step)        evaluation(task, budget)"""

from collections.abc import Callable
from typing import Any, NamedTuple

from .answer import AnswerConfig, answers
from .base import Specials as Specials
from .causal import CausalConfig, WindowFeed, Windows, WindowsConfig, causal, windows
from .chat import ChatConfig, chat
from .classify import ClassifyConfig, RegressConfig, classify, regress
from .contrast import ContrastConfig, contrast
from .denoise import InfillConfig, SpanConfig, infilling, spans
from .feed import Feed, Task
from .feed import evaluation as evaluation
from .following import FollowingConfig, following
from .masked import MaskedConfig, masked
from .tag import TagConfig, tag


class Objective(NamedTuple):
    config: type
    build: Callable[..., Any]  # (config, records, tokenizer, specials, report) -> Task
    fields: tuple[str, ...]  # what a record must hold; "a|b": one of them


OBJECTIVES = {
    "lm": Objective(CausalConfig, causal, ("text",)),
    "windows": Objective(WindowsConfig, windows, ("text",)),
    "mlm": Objective(MaskedConfig, masked, ("text",)),
    "nsp": Objective(FollowingConfig, following, ("text",)),
    "spans": Objective(SpanConfig, spans, ("text",)),
    "infill": Objective(InfillConfig, infilling, ("text",)),
    "classify": Objective(ClassifyConfig, classify, ("text", "label")),
    "regress": Objective(RegressConfig, regress, ("text", "label")),
    "tag": Objective(TagConfig, tag, ("text|words", "tags|spans")),
    "answer": Objective(AnswerConfig, answers, ("context", "question", "answers")),
    "contrast": Objective(ContrastConfig, contrast, ("text", "pair|group")),
    "chat": Objective(ChatConfig, chat, ("turns|question",)),
}


def feed(task: Task, budget: int, seed: int, *, multiple: int = 1) -> Feed | WindowFeed:
    """What a Trainer draws batches from."""
    if isinstance(task, Windows):
        return WindowFeed(task, budget, seed)
    return Feed(task, budget, seed, multiple=multiple)
