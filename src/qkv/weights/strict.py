"""The JSON of a published model folder, believed only after it was checked: config.json and generation_config.json.

Bounded in size and depth, no NaN, no key twice, and nothing in it that names code to run."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from qkv.config import MAX_CONFIG_BYTES, parse_json
from qkv.errors import ConfigError, MissingError, StoreError, WeightsError
from qkv.weights.manifest import is_crowded, open_inside

CONFIG, GENERATION = "config.json", "generation_config.json"
DEEPEST = 16  # objects and lists inside each other
LARGEST_NUMBER = 1 << 53  # beyond it JSON numbers are no longer exact
# Keys by which a folder asks that code be fetched or run.  There is no code here that could obey them.
CODE = "auto_map custom_pipelines trust_remote_code _target_ _attn_implementation_internal".split()


def read_json(folder: str | Path, name: str, largest: int = MAX_CONFIG_BYTES) -> Any:
    """One strict JSON file of a folder.  Raises MissingError QKV-020, ConfigError QKV-014, StoreError QKV-060 for a link."""
    path = Path(folder) / name
    if not os.path.lexists(path):
        raise MissingError("no such file", place=path, fix="give a folder that holds a whole model")
    with open_inside(folder, name) as f:
        size = os.fstat(f.fileno()).st_size
        if size > largest:
            seen = f"{size:,} bytes, and at most {largest:,} are read"
            raise ConfigError(seen, place=path, fix="is this the right file?", code="QKV-014")
        try:
            raw = f.read(largest)
        except OSError as e:
            seen = f"cannot be read: {e.strerror}"
            raise StoreError(seen, place=path, fix="copy the folder again") from e
    try:
        if is_crowded(raw):
            raise ValueError("too many values")
        value = parse_json(raw.decode("utf-8-sig"))
        _check(value)
    except ValueError as e:
        seen = f"not strict JSON: {str(e)[:200]}"
        raise ConfigError(seen, place=path, fix="fetch the file again", code="QKV-014") from None
    return value


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json, with a model_type and nothing that asks for code.  What the keys mean is for the family to say.

    Raises MissingError QKV-020, ConfigError QKV-014, WeightsError QKV-055, StoreError QKV-060."""
    path = Path(folder) / CONFIG
    values = _object(folder, CONFIG)
    refuse_code(values, path)
    kind = values.get("model_type")
    if not isinstance(kind, str) or not kind or len(kind) > 64 or not kind.isprintable():
        seen = "no 'model_type'" if "model_type" not in values else f"model_type {kind!r:.60}"
        named = values.get("architectures") or values.get("_class_name")
        seen += f" (architectures: {named!r:.60})" if named else ""
        fix = 'add the model_type its publisher names, for example "model_type": "gpt2"'
        raise WeightsError(seen, place=path, fix=fix, code="QKV-055")
    return values


def refuse_code(values: Any, place: object) -> None:
    """Raises WeightsError QKV-055 if any part of the configuration names code of its own."""
    for at, value in _keys(values):
        key = at.rpartition(".")[2]
        # a name with a slash is a kernel to be fetched; "eager", "sdpa" and the like are only wishes
        kernel = key == "_attn_implementation" and isinstance(value, str) and "/" in value
        if (key in CODE and value not in (None, False)) or kernel:
            raise WeightsError(
                f"{at[:80]} = {value!r:.80} asks for code from the model's publisher",
                place=place,
                fix="such code is never run; use a model whose type is among the families here",
                code="QKV-055",
            )


# --- generation ----------------------------------------------------------------------------------


def _is_int(value: Any) -> bool:
    return type(value) is int and abs(value) <= LARGEST_NUMBER


def _is_id(value: Any) -> bool:
    return _is_int(value) and value >= 0


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_id, value))


def _is_number(value: Any) -> bool:
    return _is_int(value) or (type(value) is float and math.isfinite(value))


# what a value must be, in words -> the test
Check = tuple[str, Callable[[Any], bool]]
COUNT: Check = ("a whole number ≥ 0", _is_id)
POSITIVE: Check = ("a whole number ≥ 1", lambda v: _is_id(v) and v > 0)
NUMBER: Check = ("a number", _is_number)
ABOVE_ZERO: Check = ("a number > 0", lambda v: _is_number(v) and v > 0)
SHARE: Check = ("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1)
YES_NO: Check = ("true or false", lambda v: type(v) is bool)
ID: Check = ("a token id", lambda v: _is_id(v) or v == -1 and type(v) is int)
IDS: Check = ("a token id or a list of them", lambda v: _is_id(v) or _are_ids(v) or ID[1](v))
ID_LIST: Check = ("a list of token ids", _are_ids)
PHRASES: Check = (
    "a list of lists of token ids",
    lambda v: isinstance(v, list) and all(_are_ids(p) and p for p in v),
)
KNOWN: dict[str, Check] = {
    "num_beams": POSITIVE,
    "num_return_sequences": POSITIVE,
    "length_penalty": NUMBER,
    "early_stopping": ('true, false or "never"', lambda v: type(v) is bool or v == "never"),
    "max_length": POSITIVE,
    "max_new_tokens": POSITIVE,
    "min_length": COUNT,
    "min_new_tokens": COUNT,
    "no_repeat_ngram_size": COUNT,
    "repetition_penalty": ABOVE_ZERO,
    "do_sample": YES_NO,
    "temperature": ("a number ≥ 0", lambda v: _is_number(v) and v >= 0),
    "top_k": COUNT,
    "top_p": SHARE,
    "bos_token_id": ID,
    "eos_token_id": IDS,
    "pad_token_id": ID,
    "decoder_start_token_id": ID,
    "forced_bos_token_id": ID,
    "forced_eos_token_id": IDS,
    "suppress_tokens": ID_LIST,
    "begin_suppress_tokens": ID_LIST,
    "bad_words_ids": PHRASES,
}
# Keys that say nothing about the answer, and values that turn their key off.
SILENT = frozenset(
    "transformers_version _from_model_config use_cache cache_implementation output_attentions output_hidden_states "
    "output_scores output_logits return_dict_in_generate prefill_chunk_size is_assistant disable_compile".split()
)
OFF: dict[str, tuple[Any, ...]] = {
    "num_beam_groups": (1,),
    "diversity_penalty": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "typical_p": (1,),
    "min_p": (0,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "guidance_scale": (1,),
    "token_healing": (False,),
    "low_memory": (False,),
    "exponential_decay_length_penalty": (),  # none but null
}


def generation(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the publisher means the model to write: (settings of KNOWN, other settings that are not turned off).

    From generation_config.json; where there is none, from config.json, as older folders have it.  The second half is
    for the caller to refuse or to report.  Raises as `read_json`, and ConfigError QKV-011 for a value of the wrong kind."""
    own = os.path.lexists(Path(folder) / GENERATION)
    name = GENERATION if own else CONFIG
    values = _object(folder, name)
    refuse_code(values, Path(folder) / name)
    known: dict[str, Any] = {}
    for key, (want, test) in KNOWN.items():
        value = values.get(key)
        if value is None:
            continue
        if not test(value):
            seen, place = f"{key} must be {want} (got {value!r:.60})", Path(folder) / name
            raise ConfigError(seen, place=place, fix=f"correct or remove {key}", code="QKV-011")
        known[key] = value
    others = {k: v for k, v in values.items() if k not in KNOWN and not _is_off(k, v)}
    # config.json is full of keys that have nothing to do with writing
    return known, others if own else {k: v for k, v in others.items() if k in OFF}


def _is_off(key: str, value: Any) -> bool:
    return value is None or key in SILENT or value in OFF.get(key, ())


# --- reading -------------------------------------------------------------------------------------


def _object(folder: str | Path, name: str) -> dict[str, Any]:
    values = read_json(folder, name)
    if not isinstance(values, dict):
        seen = f"holds a {type(values).__name__}, not an object"
        place = Path(folder) / name
        raise ConfigError(seen, place=place, fix="fetch the file again", code="QKV-014")
    return values


def _keys(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every key at any depth, dotted, and its value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{at}{key}", inner
            yield from _keys(inner, f"{at}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner, at)


def _check(value: Any) -> None:
    """Raises ValueError for what is nested too deeply, and for 1e999: JSON, and infinite."""
    level, depth = [value], 0
    while level:
        if any(type(v) is float and not math.isfinite(v) for v in level):
            raise ValueError("a number is too large")
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} objects and lists inside each other")
        level = [inner for v in level for inner in _inside(v)]
        depth += 1


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
