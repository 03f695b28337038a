"""Fill the gaps of a text: a word each by an encoder (BERT and its kin), any number of words by an encoder-decoder.

encoder   every gap is the tokenizer's mask ("[MASK]", "<mask>"); the n likeliest pieces of the vocabulary for each
T5        gap k is "<extra_id_k>"; the answer names each gap before its words: <extra_id_0> for inviting <extra_id_1> last
BART      every gap is "<mask>", for any number of words; the answer is the whole text, which is the one "gap" that is shown"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .data.objectives import Specials
from .decode.answer import Hypothesis
from .decode.engine import Engine
from .errors import ConfigError, DataError
from .model import Model
from .models.seq2seq import Translator
from .parts.recurrent import in_sixteens
from .read import ask, framed, headed, positive, sound, strings
from .readings import Filled, Guess, Phrase
from .shapes import Batch
from .text import AnyTokenizer, Tokenizer

SENTINEL = re.compile(r"<extra_id_(\d+)>")
MOST = 100  # answers of an encoder-decoder: each is a row of the search


@torch.inference_mode()
def fill(model: Model, texts: str | Sequence[str], n: int = 5) -> Any:
    """The n best words for each gap in a text, or the n best answers of an encoder-decoder.

    str -> Filled, list -> list.  Raises DataError QKV-033 for a text without a gap, UsageError for a model that fills
    none, ConfigError QKV-012 for n below 1, or above 100 where each answer is written."""
    positive(n=n)
    given, specials = strings(texts), Specials.of(model.tokenizer)
    named = bool(specials.sentinels) or specials.mask is not None
    how = _written if named and isinstance(model.net, Translator) else _pointed
    made = how(model, specials, given, n)
    return made[0] if isinstance(texts, str) else made


# ---- by an encoder


def _pointed(model: Model, specials: Specials, given: list[str], n: int) -> list[Filled]:
    net, tok = headed(model, "fill", "mlm", "pretraining"), model.tokenizer
    mask = specials.need("mask")
    parts = _parts(tok, given, mask)
    special = {*specials.all.tolist(), tok.unk_id, *model.nameless} - {None}
    banned = torch.tensor(sorted(special), device=model.device)

    def question(batch: Batch) -> list[tuple[Tensor, Tensor]]:
        gaps = (batch.source == mask) & batch.keep
        states = net.encode(batch).states[gaps]  # (B, S, C) -> (gaps, C)
        p = sound(in_sixteens(net.head.words, states)[0]).float().softmax(-1)
        p = p.index_fill(1, banned, 0.0)
        best = p.topk(min(n, p.shape[1] - len(banned)))
        sizes = gaps.sum(1).tolist()
        values, ids = (torch.split(x.cpu(), sizes) for x in best)
        return list(zip(values, ids, strict=True))

    rows = [framed(specials, _with_gaps(tok, p, mask)) for p in parts]
    found = ask(model, rows, question)
    return [_filled(tok, *x) for x in zip(given, parts, found, strict=True)]


def _parts(tok: AnyTokenizer, given: list[str], mask: int) -> list[list[str]]:
    """What stands around the masks of each text."""
    name = tok.tokens([mask])[0]
    made = [text.split(name) for text in given]
    for i, parts in enumerate(made):
        if len(parts) < 2:
            raise DataError(f"text {i} has no gap", fix=f"write {name} where a word is missing")
    return made


def _with_gaps(tok: AnyTokenizer, parts: list[str], mask: int) -> list[int]:
    """The ids of the parts with the mask's between; other special tokens in a text stay text."""
    if isinstance(tok, Tokenizer):
        return tok.around(parts, mask)
    name = tok.tokens([mask])[0]
    # does this vocabulary's mask swallow the space before it?  RoBERTa's does
    strips = tok.encode(f"a {name}", specials=True).offsets[-1][0] == 1
    *front, last = parts
    ids: list[int] = []
    for part in front:
        ids += [*tok.encode(part.rstrip() if strips else part).ids, mask]
    return ids + tok.encode(last).ids


def _filled(tok: Any, source: str, parts: list[str], found: tuple[Tensor, Tensor]) -> Filled:
    gaps, text = [], parts[0]
    for values, ids, after in zip(*found, parts[1:], strict=True):
        numbers = ids.tolist()
        guesses = [
            Guess(tok.decode([i]).strip(), token, i, p)
            for i, token, p in zip(numbers, tok.tokens(numbers), values.tolist(), strict=True)
        ]
        word = tok.decode(numbers[:1])
        open_ = not text or text[-1].isspace()
        text += (word.strip() if open_ else word.removeprefix("##")) + after
        gaps.append(tuple(guesses))
    return Filled(source, text, tuple(gaps))


# ---- by an encoder-decoder


def _written(model: Model, specials: Specials, given: list[str], n: int) -> list[Filled]:
    tok = model.tokenizer
    if n > MOST:
        raise ConfigError(
            f"n = {n}: an encoder-decoder writes each answer", fix=f"n = {MOST} at most"
        )
    if specials.sentinels:
        parts = [_spans(i, text, len(specials.sentinels)) for i, text in enumerate(given)]
        sources = [_numbered(tok, p, specials) for p in parts]
    else:
        mask = specials.need("mask")
        parts = _parts(tok, given, mask)
        sources = [framed(specials, _with_gaps(tok, p, mask)).ids for p in parts]
    config = replace(
        model.decode,
        beam=max(n, model.decode.beam),
        nbest=n,
        alpha=0.0,  # the likeliest first: what is told of an answer is its probability
        coverage=0.0,
        penalty="length",
        temperature=0.0,
        top_k=None,
        top_p=None,
    )
    found = Engine(model.net, config, banned=model.nameless)(sources)
    if specials.sentinels:
        return [_joined(tok, *x, specials.sentinels) for x in zip(given, parts, found, strict=True)]
    return [_whole(tok, *x) for x in zip(given, found, strict=True)]


def _spans(i: int, text: str, most: int) -> list[str]:
    """What stands around <extra_id_0>, <extra_id_1> … of a text."""
    named = [int(k) for k in SENTINEL.findall(text)]
    if not named:
        raise DataError(f"text {i} has no gap", fix="write <extra_id_0> where words are missing")
    if named != list(range(len(named))) or len(named) > most:
        raise DataError(
            f"text {i} names its gaps {', '.join(map(str, named[:6]))}",
            fix=f"number them in order: <extra_id_0> … <extra_id_{most - 1}> at most",
        )
    return SENTINEL.split(text)[::2]


def _numbered(tok: AnyTokenizer, parts: list[str], specials: Specials) -> list[int]:
    """The ids of the parts, a sentinel of its own between each two, and <eos>."""
    first, names = specials.sentinels[0], iter(specials.sentinels)
    ids = [next(names) if i == first else i for i in _with_gaps(tok, parts, first)]
    return [*ids, specials.need("eos")]


def _phrase(tok: AnyTokenizer, ids: Sequence[int], answer: Hypothesis) -> Phrase:
    shown = tuple(tok.target.tokens(ids))
    return Phrase(tok.decode(list(ids)).strip(), shown, math.exp(answer.score))


def _joined(
    tok: AnyTokenizer, source: str, parts: list[str], found: list[Hypothesis], names: Sequence[int]
) -> Filled:
    """T5: what each answer says after the name of a gap, as far as the next name; nothing where it does not name it."""
    answers = [dict(_named(h.ids, names)) for h in found]
    gaps = []
    for name in names[: len(parts) - 1]:
        said: dict[str, Phrase] = {}  # several answers may say the same of one gap
        for a, h in zip(answers, found, strict=True):
            phrase = _phrase(tok, a.get(name, ()), h)
            said.setdefault(phrase.word, phrase)
        gaps.append(tuple(said.values()))
    text = parts[0]
    for gap, after in zip(gaps, parts[1:], strict=True):
        word = gap[0].word
        text += word + (after.removeprefix(" ") if not word and text.endswith(" ") else after)
    return Filled(source, text, tuple(gaps))


def _named(ids: Sequence[int], names: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """(name, what follows it) of each gap in an answer."""
    at = [i for i, token in enumerate(ids) if token in names]
    for begin, end in pairwise([*at, len(ids)]):
        yield ids[begin], ids[begin + 1 : end]


def _whole(tok: AnyTokenizer, source: str, found: list[Hypothesis]) -> Filled:
    """BART: the text written again."""
    phrases = tuple(_phrase(tok, h.ids, h) for h in found)
    return Filled(source, phrases[0].word, (phrases,))
