"""What `transformers` wants beside a tokenizer.json of ours, so that AutoTokenizer loads the folder."""

import json

from ..errors import ConfigError
from .pipeline import SPECIALS
from .published import Published
from .tokenizer import Tokenizer


def hf_files(tokenizer: Tokenizer | Published, max_length: int | None = None) -> dict[str, bytes]:
    """files() and, for a tokenizer of ours, tokenizer_config.json and special_tokens_map.json.

    A published tokenizer keeps its own files to the byte.  `max_length`: the longest text the model takes, in tokens.
    split_special_tokens keeps the promise of `encode` there too: "<eos>" in a text is text."""
    if max_length is not None and (type(max_length) is not int or max_length < 1):
        raise ConfigError(f"max_length must be at least 1 (got {max_length!r})", fix="try 512")
    if isinstance(tokenizer, Published):
        return tokenizer.files()
    own = tokenizer.config.specials
    mask = [s for s in own if s == "<mask>"]
    names: dict[str, object] = {f"{s.strip('<>')}_token": s for s in (*SPECIALS, *mask)}
    if more := [s for s in own if s not in mask]:
        names["additional_special_tokens"] = more
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **({} if max_length is None else {"model_max_length": max_length}),
    }
    return {
        **tokenizer.files(),
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json(names),
    }


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
