"""Turns -> the next one: what `Model.chat` and `qkv chat` do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .data.objectives import Specials
from .data.objectives.chat import ChatConfig, ChatTemplate, Turn, Writer
from .decode.answer import SearchConfig
from .decode.reader import Reader
from .decode.rows import prompted
from .errors import DataError
from .generate import continued, engine, generate

if TYPE_CHECKING:
    from .model import Model


def chat(model: "Model", turns: str | Sequence[Turn], config: SearchConfig, stream: bool) -> Any:
    """What the assistant says next: a Generation (an encoder-decoder: a Translation of the last turn), or its pieces.

    turns: [("user", "…"), ("assistant", "…"), …, ("user", "…")], or one text of the user's.  Of a conversation longer than
    the model's positions the oldest turns are forgotten.  Raises DataError for no turns, QKV-037 where the last alone is
    too long."""
    said = [("user", turns)] if isinstance(turns, str) else [(role, text) for role, text in turns]
    if not said or not said[-1][1].strip():
        raise DataError("nothing was said", fix='pass a text, or turns [("user", "…")]')
    if not prompted(model.net):
        return generate(model, said[-1][1], config, (), stream)
    template = model.template or ChatTemplate()
    writer = Writer(ChatConfig(template=template), model.tokenizer, Specials.of(model.tokenizer))
    ids = fitting(writer, said, model, config.max_new_tokens or 0)
    reader = Reader(model.tokenizer.decode, ())
    if stream:
        return (piece for _, piece in engine(model, config, reader).pieces([ids]))
    return continued(model, [said[-1][1]], [ids], config, reader)[0]


def fitting(writer: Writer, turns: list[Turn], model: "Model", room: int) -> list[int]:
    """The prompt of the newest turns that leave `room` tokens for an answer; of the last one if it leaves any."""
    most = getattr(model.net, "max_positions", None)
    for first in range(len(turns)):
        ids: list[int] = writer.prompt(turns[first:]).tolist()
        wanted = room if first < len(turns) - 1 else 1
        if most is None or len(ids) + wanted <= most:
            return ids
    raise DataError(
        f"the last turn takes {len(ids)} tokens, and the model has {most} positions",
        fix="say less",
        code="QKV-037",
    )
