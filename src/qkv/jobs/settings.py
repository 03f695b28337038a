"""What a tokenizer decides of a model's configuration."""

from typing import Any

from ..text import AnyTokenizer


def special_ids(tokenizer: AnyTokenizer) -> dict[str, Any]:
    """vocab_size and the special ids there are; a family takes those its configuration has."""
    ids = {
        f"{name}_id": getattr(tokenizer, f"{name}_id", None)
        for name in ("pad", "bos", "eos", "sep")
    }
    known = {name: i for name, i in ids.items() if i is not None}
    return {"vocab_size": tokenizer.vocab_size} | known
