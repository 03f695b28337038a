"""Training a vocabulary from lines.  The same lines and settings give the same bytes, whatever the machine's threads.

`sentencepiece` fits the unigram model, `tokenizers` learns BPE merges and word pieces; words and characters are counted.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..errors import TokenizerError
from .check import MAX_PIECE, shell
from .config import TextConfig
from .pipeline import BYTE_KINDS, BYTES, SPECIALS, UNK, cutter, fold, prefix
from .tokenizer import Tokenizer

HEAD = len(SPECIALS)
CHOP = 1000  # characters: sentencepiece silently skips long lines
MAX_BPE_PIECE = 64


def train(lines: Iterable[str], config: TextConfig) -> Tokenizer:
    """Learn a vocabulary of at most config.vocab_size entries.

    Raises TokenizerError QKV-042 when there is nothing to learn from or the alphabet does not fit."""
    return _with_specials(lines, config) if config.specials else _trained(lines, config)


def _trained(lines: Iterable[str], config: TextConfig, more: int = 0) -> Tokenizer:
    """Without specials of its own; more: how many will be added."""
    if config.kind == "bytes":
        return Tokenizer(config, _numbered(config, [], []))
    folded = [f for line in lines if (f := fold(line, config)).strip()]
    if not folded:
        raise TokenizerError(
            "no line with text to train on", fix="check the path and column", code="QKV-042"
        )
    counts: Counter[str] = Counter()
    for line in folded:
        counts.update(line)
    alphabet = [c for c, n in counts.items() if n >= config.min_count and c != " "]
    rare = {ord(c): " " for c, n in counts.items() if n < config.min_count}
    _fits(config, len(alphabet), more)
    if rare and config.kind != "words":
        folded = [line.translate(rare) for line in folded]
    return Tokenizer(config, _learn(folded, counts, alphabet, config))


def _with_specials(lines: Iterable[str], config: TextConfig) -> Tokenizer:
    """The same with room left at the end of the vocabulary."""
    k = len(config.specials)
    model = _trained(
        lines, replace(config, vocab_size=config.vocab_size - k, specials=()), k
    )._model
    vocab: Any = model["vocab"]
    if isinstance(vocab, list):
        vocab = vocab + [[name, 0.0] for name in config.specials]
    else:
        vocab = vocab | {name: i for i, name in enumerate(config.specials, len(vocab))}
    return Tokenizer(config, {**model, "vocab": vocab})


def _learn(
    folded: list[str], counts: Counter[str], alphabet: list[str], config: TextConfig
) -> dict[str, Any]:
    if config.kind == "unigram":
        return _unigram(folded, alphabet, config)
    if config.kind == "bpe":
        return _bpe(folded, config)
    if config.kind == "wordpiece":
        return _wordpiece(folded, config)
    if config.kind == "words":
        return _words(folded, config)
    space = [" "] if counts[" "] >= config.min_count else []
    return _numbered(config, sorted(alphabet + space, key=lambda c: (-counts[c], c)), [])


def _fits(config: TextConfig, letters: int, more: int) -> None:
    """Every kind but words has a piece for each character (and the space), byte kinds also for each byte.

    more: specials for which there is room besides config.vocab_size."""
    head = HEAD + (len(BYTES) if config.kind in BYTE_KINDS else 0)
    need = head + (0 if config.kind == "words" else letters + 1)
    if need > config.vocab_size:
        raise TokenizerError(
            f"vocab_size {config.vocab_size + more} is too small for {config.kind}: {head + more} specials and bytes"
            f" + {letters} characters and the space need {need + more}",
            fix=f"choose vocab_size >= {need + more}, or a larger min_count than {config.min_count}",
            code="QKV-042",
        )


def _numbered(
    config: TextConfig, pieces: list[str], merges: list[tuple[str, str]]
) -> dict[str, Any]:
    head = [*SPECIALS, *(BYTES if config.kind in BYTE_KINDS else ())]
    model = {**shell(config.kind), "vocab": {p: i for i, p in enumerate(head + pieces)}}
    return {**model, "merges": [list(m) for m in merges]} if "dropout" in model else model


def _library(trainer: Any, model: Any, folded: list[str], config: TextConfig) -> Any:
    """Run a trainer of `tokenizers` over the cut text; returns its state as plain values."""
    worker = _cutting(model, config)
    worker.train_from_iterator((prefix(f, config) for f in folded), trainer)
    return json.loads(worker.to_str())["model"]


def _cutting(model: Any, config: TextConfig) -> Any:
    """The library's tokenizer around a model, cutting text as ours will."""
    from tokenizers import Tokenizer as Rust

    spec = {**json.loads(Rust(model).to_str()), "pre_tokenizer": cutter(config)}
    return Rust.from_str(json.dumps(spec))


def _bpe(folded: list[str], config: TextConfig) -> dict[str, Any]:
    from tokenizers import models, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size - HEAD - len(BYTES),
        show_progress=False,
        max_token_length=MAX_BPE_PIECE,
    )
    made = _library(trainer, models.BPE(), folded, config)
    pieces = sorted(made["vocab"], key=made["vocab"].__getitem__)
    return _numbered(config, pieces, made["merges"])


def _wordpiece(folded: list[str], config: TextConfig) -> dict[str, Any]:
    from tokenizers import models, trainers

    # A word of more than 100 characters is unknown as a whole, so nothing longer need be learned.
    folded = [_LONG.sub(r"\1 ", line) for line in folded]
    # The library numbers "##x" in the order of a hash table and breaks ties by number: numbered here, sorted, it
    # learns the same pieces every time.
    after = [f"##{c}" for c in _continuing(folded, config)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        show_progress=False,
        special_tokens=[*SPECIALS, *after],
        continuing_subword_prefix="##",
    )
    made = _library(trainer, models.WordPiece(unk_token=SPECIALS[UNK]), folded, config)
    pieces = sorted(made["vocab"], key=made["vocab"].__getitem__)[HEAD:]
    if len(pieces) + HEAD > config.vocab_size:
        need = len(pieces) + HEAD
        raise TokenizerError(
            f"vocab_size {config.vocab_size} is too small for wordpiece: specials and characters,"
            f" alone and after ##, need {need}",
            fix=f"choose vocab_size >= {need}, or a larger min_count than {config.min_count}",
            code="QKV-042",
        )
    return _numbered(config, pieces, [])


_LONG = re.compile(r"(\S{99})(?=\S)")


def _continuing(folded: list[str], config: TextConfig) -> list[str]:
    """The characters that stand somewhere after the first of a word."""
    from tokenizers import models

    cut = _cutting(models.BPE(), config).pre_tokenizer
    found: set[str] = set()
    for line in folded:
        for word, _ in cut.pre_tokenize_str(prefix(line, config)):
            found.update(word[1:])
    return sorted(found)


def _words(folded: list[str], config: TextConfig) -> dict[str, Any]:
    from tokenizers import models, trainers

    trainer = trainers.WordLevelTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_count,
        show_progress=False,
        special_tokens=list(SPECIALS),
    )
    made = _library(trainer, models.WordLevel(unk_token=SPECIALS[UNK]), folded, config)
    pieces = sorted(made["vocab"], key=made["vocab"].__getitem__)[HEAD:]
    return _numbered(config, [p for p in pieces if len(p) <= MAX_PIECE], [])


def _unigram(folded: list[str], alphabet: list[str], config: TextConfig) -> dict[str, Any]:
    import sentencepiece

    out = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=_chopped(folded),
            model_writer=out,
            model_type="unigram",
            vocab_size=config.vocab_size - len(BYTES) - ("<" in alphabet),
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            num_threads=1,  # sums in a fixed order
            minloglevel=2,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
        )
    except RuntimeError as e:
        raise TokenizerError(
            f"sentencepiece could not learn from {len(folded)} lines: {str(e)[-200:]}",
            fix="choose another vocab_size, or kind = 'bpe'",
            code="QKV-042",
        ) from None
    learned = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    scored = {}
    for i in range(HEAD, learned.get_piece_size()):
        scored[learned.id_to_piece(i).replace("▁", " ")] = learned.get_score(i)
    if "<" in alphabet:  # always alone, so it was kept out of the fit
        scored["<"] = min(scored.values())
    head = [*SPECIALS, *BYTES]
    vocab = [[p, 0.0] for p in head] + [[p, s] for p, s in scored.items()]
    return {**shell("unigram"), "vocab": vocab}


# "▁", tab, "▅" and "⁇" are sentencepiece's own marks, NUL ends its text, "<" is cut off before it: all are left out
_KEPT_OUT = {ord(c): " " for c in "▁\t▅⁇\0<"}


def _chopped(folded: list[str]) -> Iterator[str]:
    for line in folded:
        line = line.translate(_KEPT_OUT)
        for at in range(0, len(line), CHOP):
            yield line[at : at + CHOP]
