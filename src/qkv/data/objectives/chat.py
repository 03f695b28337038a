r"""Conversations: the loss is on what the assistant says, and on the token that ends it.

    <bos> User: hello \n Assistant: hi <eos>          (Ouyang et al. 2022, section 3.5, over turns)
                                     ^^  ^^^^^

The text around each turn is a template, given as plain data; every part is encoded by itself, so that a prompt is the
beginning of what was trained on, token for token, and nobody's words can become a special token."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ..records import Record
from ..report import SkipReport
from ..stream import Encoder, Rows
from .base import Chosen, Draw, Ids, Row, Specials
from .feed import check_room
from .masked import cut_out
from .texts import ids_of, some

NAMED = re.compile(r"\{(bos|eos|cls|sep|pad)\}")
Turn = tuple[str, str]  # role, text


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """What stands before and after the text of each role; "{bos}", "{eos}", … are special tokens."""

    start: str = "{bos}"  # before the first turn
    roles: dict[str, Any] = field(
        default_factory=lambda: {
            "system": ["", "\n"],
            "user": ["User: ", "\n"],
            "assistant": ["Assistant: ", "{eos}"],
        }
    )

    def __post_init__(self) -> None:
        for role, around in self.roles.items():
            two = isinstance(around, (list, tuple)) and len(around) == 2
            if not two or not all(isinstance(text, str) for text in around):
                raise ConfigError(
                    f"the role {role!r} needs two texts, before and after (got {around!r})",
                    fix=f'{role} = ["{role}: ", "\\n"]',
                    code="QKV-011",
                )


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    max_tokens: int = 256  # of a conversation; the oldest turns of a longer one are left out
    template: ChatTemplate = field(default_factory=ChatTemplate)
    learn: tuple[str, ...] = ("assistant",)  # whose words are learned


class Writer:
    """Turns -> (ids, which of them are learned), by one template and tokenizer."""

    def __init__(self, config: ChatConfig, tokenizer: Encoder, specials: Specials) -> None:
        self.config, self.tokenizer, self.specials = config, tokenizer, specials
        template = config.template
        self.start = self._part(template.start)
        self.around = {
            role: (self._part(before), self._part(after))
            for role, (before, after) in template.roles.items()
        }

    def _part(self, text: str) -> Ids:
        """A text of the template: special tokens by name, everything else encoded."""
        parts: list[Ids] = [np.empty(0, np.int64)]
        for i, piece in enumerate(NAMED.split(text)):
            if i % 2:
                parts.append(np.array([self.specials.need(piece)], dtype=np.int64))
            elif piece:
                parts.append(self._encoded([piece])[0])
        return np.concatenate(parts)

    def _encoded(self, texts: Sequence[str]) -> list[Ids]:
        return [ids_of(e) for e in self.tokenizer.encode_batch(texts)]

    def turns(self, turns: Sequence[Turn]) -> list[tuple[Ids, Chosen]]:
        """Each turn with what stands around it.  Raises DataError on a role that the template does not know."""
        made = []
        for (role, _), ids in zip(turns, self._encoded([text for _, text in turns]), strict=True):
            if role not in self.around:
                raise DataError(
                    f"the template has no role {role!r}",
                    fix=f"known: {', '.join(self.around)}",
                )
            before, after = self.around[role]
            whole = np.concatenate([before, ids, after])
            learned = np.zeros(len(whole), dtype=bool)
            learned[len(before) :] = role in self.config.learn
            made.append((whole, learned))
        return made

    def prompt(self, turns: Sequence[Turn], role: str = "assistant") -> Ids:
        """The ids after which `role` speaks next."""
        parts = [whole for whole, _ in self.turns(turns)]
        return np.concatenate([self.start, *parts, self.around[role][0]])

    def whole(self, turns: Sequence[Turn]) -> tuple[Ids, Chosen] | None:
        """The newest turns that fit, from one that nobody is to learn on; None where none of them is learned."""
        made = self.turns(turns)
        room = (
            self.config.max_tokens + 1 - len(self.start)
        )  # one more: the last id is only predicted
        while made and sum(len(ids) for ids, _ in made) > room:
            made = made[1:]
            while made and made[0][1].any():
                made = made[1:]
        if not any(learned.any() for _, learned in made):
            return None
        none = np.zeros(len(self.start), dtype=bool)
        ids = np.concatenate([self.start, *(x for x, _ in made)])
        return ids, np.concatenate([none, *(x for _, x in made)])


class Chat:
    """Conversations: ids, and which of them are learned."""

    def __init__(self, config: ChatConfig, texts: Rows, learned: Rows, specials: Specials) -> None:
        self.config, self.texts, self.learned, self.specials = config, texts, learned, specials

    @property
    def lengths(self) -> NDArray[np.int64]:
        n = self.texts.lengths - 1
        return np.stack([n, n], axis=1)

    def row(self, i: int, draw: Draw) -> Row:
        n = int(self.texts.lengths[i])
        ids, learned = cut_out(self.texts, i, 0, n), cut_out(self.learned, i, 0, n) > 0
        return Row(ids[:-1], ids[1:], learned[1:])


def turns_of(record: Record) -> list[Turn] | None:
    """ "turns": [{"role", "content"}, …], or "question" and "answer"; None where that is not what is there."""
    v = record.values
    if "turns" not in v:
        pair = (("user", v.get("question")), ("assistant", v.get("answer")))
        said: Any = [{"role": role, "content": text} for role, text in pair]
    else:
        said = v["turns"]
    if not isinstance(said, list) or not said:
        return None
    made = [_turn(turn) for turn in said]
    return [turn for turn in made if turn] if all(made) else None


def _turn(turn: Any) -> Turn | None:
    if not isinstance(turn, dict):
        return None
    role, text = turn.get("role"), turn.get("content")
    return (role, text) if isinstance(role, str) and isinstance(text, str) and text else None


def _made(writer: Writer, record: Record) -> tuple[Ids, Chosen] | str:
    """A conversation's ids and which are learned, or why there are none."""
    turns = turns_of(record)
    if turns is None or any(role not in writer.around for role, _ in turns):
        return "bad turns"
    try:
        made = writer.whole(turns)
    except Exception:  # one poisoned record must not end a run
        return "not encodable"
    return "nothing to learn" if made is None or len(made[0]) < 2 else made


def chat(
    config: ChatConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Chat:
    """Records as `turns_of` takes them.

    Turns of another shape, or of a role that the template lacks, are counted as "bad turns"; conversations that nothing of can be learned from, also because
    the last answer alone is too long, as "nothing to learn"."""
    check_room(config.max_tokens, 2)
    writer, kept, learned = Writer(config, tokenizer, specials), [], []
    for record in records:
        made = _made(writer, record)
        if isinstance(made, str):
            report.drop(record.place, made, record.lines)
            continue
        kept.append(made[0])
        learned.append(made[1].astype(np.int64))
    some(kept, report)
    return Chat(config, Rows.of(kept), Rows.of(learned), specials)
