"""What a family puts around a text: [CLS] a [SEP] b [SEP], <s> a </s></s> b </s>, a </s>, or nothing.

Read from the post-processor of a tokenizer.json.  ids -> (ids, segment ids)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .specials import refuse

Slot = tuple[str | int, int]  # "A", "B" or the id of a special token; and its segment
MAX_SLOTS = 1000


@dataclass(frozen=True)
class Frame:
    """The two templates: a list of slots for one text, one for a pair."""

    single: tuple[Slot, ...] = (("A", 0),)
    pair: tuple[Slot, ...] = (("A", 0), ("B", 1))

    def __call__(
        self, ids: Sequence[int], pair: Sequence[int] | None = None
    ) -> tuple[list[int], list[int]]:
        texts: dict[str | int, Sequence[int]] = {"A": ids, "B": pair or ()}
        made: list[int] = []
        segments: list[int] = []
        for what, segment in self.single if pair is None else self.pair:
            piece = texts[what] if isinstance(what, str) else (what,)
            made += piece
            segments += [segment] * len(piece)
        return made, segments


def read_frame(value: Any, place: str) -> Frame:
    """The frame of a post_processor.  Raises TokenizerError on one that is not known or malformed."""
    if value is None:
        return Frame()
    if not isinstance(value, Mapping):
        refuse("post_processor is not an object", place)
    kind = value.get("type")
    if kind == "ByteLevel":  # trims offsets, adds nothing
        return Frame()
    if kind == "Sequence":
        return _sequence(value.get("processors"), place)
    if kind == "TemplateProcessing":
        known = value.get("special_tokens")
        return Frame(
            _template(value.get("single"), known, "A", place),
            _template(value.get("pair"), known, "AB", place),
        )
    if kind in ("BertProcessing", "RobertaProcessing"):
        sep, cls = (_ending(value.get(name), name, place) for name in ("sep", "cls"))
        single: tuple[Slot, ...] = ((cls, 0), ("A", 0), (sep, 0))
        if kind == "BertProcessing":
            return Frame(single, (*single, ("B", 1), (sep, 1)))
        return Frame(single, (*single, (sep, 0), ("B", 0), (sep, 0)))
    refuse(f"post_processor of the type {kind!r:.60} is not known", place)


def _sequence(steps: Any, place: str) -> Frame:
    if not isinstance(steps, list) or len(steps) > MAX_SLOTS:
        refuse("post_processor is a Sequence without a list of processors", place)
    made = [frame for frame in (read_frame(step, place) for step in steps) if frame != Frame()]
    if len(made) > 1:
        refuse("post_processor is a Sequence of two that both add tokens", place)
    return made[0] if made else Frame()


def _template(slots: Any, known: Any, texts: str, place: str) -> tuple[Slot, ...]:
    if not isinstance(slots, list) or not isinstance(known, Mapping) or len(slots) > MAX_SLOTS:
        refuse("post_processor: a TemplateProcessing needs single, pair and special_tokens", place)
    made: list[Slot] = []
    for slot in slots:
        kind, body = next(iter(slot.items())) if isinstance(slot, dict) and slot else ("", {})
        name = body.get("id") if isinstance(body, dict) else None
        segment = body.get("type_id") if isinstance(body, dict) else None
        if not isinstance(name, str) or type(segment) is not int or not 0 <= segment < 1 << 16:
            refuse(f"post_processor: a template holds {slot!r:.80}", place)
        if kind == "Sequence" and name in ("A", "B"):
            made.append((name, segment))
        elif kind == "SpecialToken" and isinstance(known.get(name), dict):
            made += [(i, segment) for i in _ids(known[name].get("ids"), name, place)]
        else:
            refuse(f"post_processor: a template names {name[:60]!r}, which is not declared", place)
    if sorted(s for s, _ in made if isinstance(s, str)) != list(texts):
        refuse(f"post_processor: a template does not use each of {', '.join(texts)} once", place)
    return tuple(made)


def _ids(value: Any, name: str, place: str) -> list[int]:
    if not isinstance(value, list) or len(value) > MAX_SLOTS or any(not _is_id(i) for i in value):
        refuse(f"post_processor: {name[:60]!r} has no list of ids", place)
    return value


def _ending(value: Any, name: str, place: str) -> int:
    if not isinstance(value, list) or len(value) != 2 or not _is_id(value[1]):
        refuse(f"post_processor: {name} is not [token, id]", place)
    return int(value[1])


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31
