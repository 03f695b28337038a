"""Which tokens are special, as the JSON files beside a published vocabulary say it.

tokenizer_config.json, then special_tokens_map.json over it (where the first does not list its added tokens itself),
then added_tokens.json; what none of them names has the default of its style: BERT's [CLS], RoBERTa's <s>, ...
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import TokenizerError

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
MAX_TOKEN, MAX_TOKENS = 1024, 100_000

ANGLE = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
FAIR = {**ANGLE, "sep": "</s>", "cls": "<s>", "mask": "<mask>"}
END = "<|endoftext|>"
STYLES: dict[
    str, dict[str, str]
] = {  # style -> what its special tokens are called unless a file says otherwise
    "bert": {n: f"[{n.upper()}]" for n in ("unk", "sep", "pad", "cls", "mask")},
    "roberta": FAIR,
    "mbart": FAIR,
    "gpt2": dict.fromkeys(("bos", "eos", "unk"), END),
    "qwen2": dict.fromkeys(("eos", "unk", "pad"), END),
    "llama": {n: ANGLE[n] for n in ("bos", "eos", "unk")},
    "t5": {n: ANGLE[n] for n in ("eos", "unk", "pad")},
    "marian": {n: ANGLE[n] for n in ("eos", "unk", "pad")},
    "bigbird": {**ANGLE, **{n: f"[{n.upper()}]" for n in ("sep", "cls", "mask")}},
}
CLASSES = {  # tokenizer_class without "Tokenizer" and "Fast" -> style
    "Bert": "bert", "DistilBert": "bert", "Electra": "bert", "MobileBert": "bert",
    "Roberta": "roberta", "Bart": "roberta", "GPT2": "gpt2", "Qwen2": "qwen2", "Llama": "llama",
    "T5": "t5", "MBart": "mbart", "Marian": "marian", "Longformer": "roberta", "BigBird": "bigbird",
}  # fmt: skip
TYPES = {  # model_type of config.json -> style
    "bert": "bert", "distilbert": "bert", "electra": "bert", "mobilebert": "bert", "roberta": "roberta", "bart": "roberta",
    "gpt2": "gpt2", "qwen2": "qwen2", "qwen3": "qwen2", "llama": "llama", "t5": "t5", "mt5": "t5", "mbart": "mbart", "marian": "marian",
    "longformer": "roberta", "big_bird": "bigbird",
}  # fmt: skip
ANY_CLASS = ("", "PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")


@dataclass(frozen=True, kw_only=True)
class Token:
    """A special or added token with the flags of the `tokenizers` library; None: the library's default."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool | None = None
    special: bool = True


@dataclass(frozen=True, kw_only=True)
class Specials:
    """named: bos, eos, ... -> token; extra: further special tokens; added: (id, token) of a file that numbers them."""

    named: Mapping[str, Token] = field(default_factory=dict)
    extra: tuple[Token, ...] = ()
    added: tuple[tuple[int, Token], ...] = ()


def style_of(config: Mapping[str, Any], model: Mapping[str, Any], place: str) -> str | None:
    """The style that tokenizer_class or model_type names; None where neither says anything.

    Raises TokenizerError on a class whose way of cutting text is not known here."""
    for values in (config, model):
        name = values.get("tokenizer_class")
        if name is not None and not isinstance(name, str):
            refuse(f"tokenizer_class is {name!r:.60}, not a name", place)
        stem = (name or "").removesuffix("Fast").removesuffix("Tokenizer")
        if stem in CLASSES:
            return CLASSES[stem]
        if (name or "") not in ANY_CLASS:
            return f"unknown:{name}"
    kind = model.get("model_type")
    return TYPES.get(kind) if isinstance(kind, str) else None


def read_specials(
    files: Mapping[str, Any], style: str | None, where: Callable[[str], str]
) -> Specials:
    """`files`: the parsed tokenizer_config.json, special_tokens_map.json and added_tokens.json, by name."""
    config = dict(files.get(CONFIG, {}))
    numbered = config.get("added_tokens_decoder")
    over = files.get(MAP, {}) if numbered is None else {}
    config.update({k: _marked(v) for k, v in over.items()})
    named: dict[str, Token] = {}
    for name in NAMES:
        key = f"{name}_token"
        value = config.get(key, STYLES.get(style or "", {}).get(name))
        if name == "mask" and style == "bigbird" and isinstance(value, str):
            value = {"content": value, "lstrip": True}  # its class says so, unless a file does
        if value is not None:
            named[name] = token(value, key, where(MAP if key in over else CONFIG))
    place = where(MAP if "additional_special_tokens" in over else CONFIG)
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or ()
    if isinstance(extra, Mapping):
        extra = list(extra.values())
    if not isinstance(extra, (list, tuple)) or len(extra) > MAX_TOKENS:
        refuse("additional_special_tokens is not a list of tokens", place)
    extras = tuple(token(t, "additional_special_tokens", place) for t in extra)
    special = {t.content for t in (*named.values(), *extras)}
    added = (
        _numbered(numbered, where(CONFIG))
        if numbered is not None
        else _words(files.get(ADDED, {}), special, where(ADDED))
    )
    known = {t.content: t for _, t in added}
    return Specials(
        named={n: known.get(t.content, t) for n, t in named.items()},
        extra=tuple(known.get(t.content, t) for t in extras),
        added=added,
    )


def _marked(value: Any) -> Any:
    """An object of special_tokens_map.json is special whatever it says."""
    return {**value, "special": True} if isinstance(value, dict) else value


def token(value: Any, name: str, place: str) -> Token:
    """A token from a string or a {"content": ...} object."""
    if isinstance(value, str):
        value = {"content": value}
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        refuse(f"{name} is {value!r:.60}, neither a string nor {{'content': …}}", place)
    content = value["content"]
    if not 0 < len(content) <= MAX_TOKEN:
        refuse(f"{name} is a token of {len(content)} characters", place)
    for flag in FLAGS:
        if type(value.get(flag, False)) is not bool:
            refuse(f"{name}: {flag} is {value[flag]!r:.40}, not true or false", place)
    return Token(content=content, **{f: value[f] for f in FLAGS if f in value})


def _numbered(value: Any, place: str) -> tuple[tuple[int, Token], ...]:
    if not isinstance(value, dict) or len(value) > MAX_TOKENS:
        refuse("added_tokens_decoder is not an object of ids and tokens", place)
    made = []
    for key, entry in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            refuse(f"added_tokens_decoder has the id {key[:40]!r}", place)
        flags = {"special": False, **entry} if isinstance(entry, dict) else entry
        made.append((int(key), token(flags, f"added token {key}", place)))
    return tuple(sorted(made, key=lambda pair: pair[0]))


def _words(value: Any, special: set[str], place: str) -> tuple[tuple[int, Token], ...]:
    if not isinstance(value, dict) or len(value) > MAX_TOKENS:
        refuse("added_tokens.json is not an object of tokens and ids", place)
    made = []
    for content, at in value.items():
        if type(at) is not int or not 0 <= at < 10**9:
            refuse(f"added_tokens.json gives {content[:40]!r} the id {at!r:.40}", place)
        flags = {"normalized": content not in special, "special": content in special}
        made.append((at, token({"content": content, **flags}, f"added token {at}", place)))
    if len({at for at, _ in made}) != len(made):
        refuse("added_tokens.json gives one id twice", place)
    return tuple(sorted(made, key=lambda pair: pair[0]))


def refuse(seen: str, place: str, fix: str = "copy or fetch the file again") -> NoReturn:
    raise TokenizerError(seen, place=place, fix=fix)
