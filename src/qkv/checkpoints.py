"""A model in a folder: ours, or a published one.  `load` reads both, `files` is what `Model.save` writes.

ours        config.json {format_version, model, decode}, tensors under our names; families the ecosystem has no place for
published   config.json with a model_type, tensors under its publisher's names: what transformers reads and writes"""

import json
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .config import from_dict, to_dict
from .decode.answer import SearchConfig
from .errors import MissingError, QkvError, StoreError, WeightsError, did_you_mean
from .model import Model
from .models import FAMILIES, build, configure, describe, family_of, hf
from .models.interface import set_state, state_of
from .models.seq2seq import Translator
from .readings import Habits
from .text import AnyTokenizer, hf_files, load_tokenizer
from .text.check import SETTINGS_FILE
from .text.layouts import LAYOUTS
from .weights import store
from .weights.files import File, account
from .weights.folder import Tensors, tensors
from .weights.folder import files as weight_files
from .weights.strict import CONFIG, GENERATION, generation, read_config, read_json

if TYPE_CHECKING:  # loading a translator needs none of the objectives
    from .data.images.process import Processor
    from .data.objectives.chat import ChatTemplate

FORMAT = 1
PROCESSOR = "preprocessor_config.json"
Files = dict[str, bytes | File]
KEYS = ("format_version", "model_type", "model", "decode", "chat", "reading")
# settings of generation: their names and ours
ALWAYS = {
    "max_new_tokens": "max_new_tokens",
    "min_new_tokens": "min_new_tokens",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "forced_bos_token_id": "forced_first",
}
BEAMS = {"num_beams": "beam", "length_penalty": "alpha", "early_stopping": "early_stopping"}
SAMPLED = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p"}
ACTIVATIONS = (  # keys of config.json
    "activation_function",
    "hidden_act",
    "activation",
    "pooler_act",
    "feed_forward_proj",
    "dense_act_fn",
)
LARGEST_ALPHA = 10  # SearchConfig's
LENGTHS = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}


def load(source: str | Path, device: str = "auto", dtype: torch.dtype | None = None) -> Model:
    """A run folder (its best), a model folder of ours or of transformers, or a hub id -> Model.

    Raises MissingError QKV-021, StoreError for damaged files, WeightsError for tensors or settings that do not fit."""
    folder = find(source)
    if (folder / store.MANIFEST).is_file():
        store.verify(folder)
    values = read_json(folder, CONFIG)
    own = isinstance(values, dict) and "model" in values and "format_version" in values
    model = _ours(folder, values) if own else _published(folder)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model.net.to(device, dtype)
    return model


def find(source: str | Path) -> Path:
    """runs/X -> runs/X/best; a model folder -> itself; owner/name -> what the hub has under that name."""
    path = Path(source)
    run = (path / "config.toml").is_file()
    for name in ("best", "last", ""):
        folder = store.recover(path / name)
        if (folder / CONFIG).is_file():
            return folder
        if name and run and folder.is_dir():
            fix = "copy it back, or delete this folder: the run's next best model is taken then"
            raise StoreError(f"no {CONFIG} in this model", place=folder, fix=fix)
    if path.exists():
        fix = "give a run folder or a model folder (with config.json)"
        if run:
            fix = f"it was stopped before its first model; go on with it: qkv train {source}"
        raise MissingError(f"no model at {source}", fix=fix, code="QKV-021")
    from .weights import hub

    local = path.parts[:1] == ("runs",) or Path(*path.parts[:1]).is_dir()  # a mistyped path
    if isinstance(source, str) and not local and hub.split_id(source) is not None:
        return hub.fetch(source, progress=sys.stderr.isatty())
    near = ", ".join(str(p.parent) for p in sorted(Path("runs").glob("*/best"))[:5])
    fix = f"known runs: {near}" if near else "train one: qkv demo"
    raise MissingError(f"no model at {source}", fix=fix, code="QKV-021")


def _ours(folder: Path, values: dict[str, Any]) -> Model:
    path = folder / CONFIG
    version = values["format_version"]
    if type(version) is int and version > FORMAT:
        raise StoreError(
            f"format {version}, this qkv reads up to {FORMAT}",
            place=path,
            fix="install a newer qkv",
            code="QKV-063",
        )
    for key in values:
        if key not in KEYS:
            raise WeightsError(
                f"unknown key {key!r}", place=path, fix=did_you_mean(key, KEYS), code="QKV-010"
            )
    if version != FORMAT or not isinstance(values["model"], dict):
        raise WeightsError(
            f"not a qkv model: format_version {version!r}, model {values['model']!r:.50}",
            place=path,
            fix="give a folder qkv wrote",
            code="QKV-055",
        )
    config = configure(values["model"], place=path)
    texts = hasattr(config, "vocab_size")
    tokenizer = _tokenizer(folder) if texts else None
    if tokenizer is not None:
        fits(tokenizer, config, folder)
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in state_of(build(config)).items()}
    found = tensors(folder, shapes)
    net = _built(config, found)
    set_state(net, found.load(), place=folder)
    decode = from_dict(SearchConfig, values.get("decode", {}), place=path, at="decode.")
    template, processor, habits = _template(values, path), _processor(folder), _habits(values, path)
    model = Model(net, tokenizer, config, decode, folder, template, processor, habits)
    model.kinds = found.dtypes
    return model


def _published(folder: Path) -> Model:
    values, place = read_config(folder), folder / CONFIG
    module = hf.family(values, FAMILIES.values(), place)
    noted, config = values.get("qkv"), hf.configured(module, values, place)
    if not isinstance(noted, dict) and getattr(config, "head", None) == "lm":
        config = hf.configured(module, values | _special(folder), place)
    found = tensors(folder)
    config = hf.fitted(module, config, found)
    table = module.table(config)
    names = hf.full_names(module, table, found)
    left = table.skipped(names).keys() | table.tied.keys()
    with torch.device("meta"):  # names and shapes are compared before a tensor is read
        wanted = table.backward(state_of(build(config)))
    wanted = {n: t for n, t in wanted.items() if n in names or n not in table.absent}
    account(
        {n: found.shapes[stored] for n, stored in names.items() if n not in left},
        {n: tuple(t.shape) for n, t in wanted.items()},
        folder,
    )
    found.check_floating(names[n] for n in names if n in wanted)
    used = wanted.keys() | table.tied.keys() | table.known.keys()
    theirs = {n: found[names[n]] for n in names if n in used}
    net = _built(config, found)
    set_state(net, table.forward(theirs), place=folder)
    tokenizer = _tokenizer(folder) if hasattr(config, "vocab_size") else None
    if tokenizer is not None:
        fits(tokenizer, config, folder)
    own = noted if isinstance(noted, dict) else {}
    template, habits = _template(own, place), _habits(own, place)
    decode, processor = _decode(values, folder, net), _processor(folder)
    model = Model(net, tokenizer, config, decode, folder, template, processor, habits)
    kinds, prefix = found.dtypes, table.prefix or module.PREFIX
    for name, stored in names.items():  # a bare model is written without the prefix
        kinds |= {name: kinds[stored], name.removeprefix(prefix): kinds[stored]}
    model.kinds, written = kinds, module.to_hf(config)
    model.spelled = {
        key: values[key] for key in ACTIVATIONS if key in values and values[key] != written.get(key)
    }
    return model


def _template(values: Mapping[str, Any], place: object) -> "ChatTemplate | None":
    if values.get("chat") is None:
        return None
    from .data.objectives.chat import ChatTemplate

    return from_dict(ChatTemplate, values["chat"], place=place, at="chat.")


def _habits(values: Mapping[str, Any], place: object) -> Habits:
    return from_dict(Habits, values.get("reading", {}), place=place, at="reading.")


def _tokenizer(folder: Path) -> AnyTokenizer | None:
    """None where no tokenizer's file lies there: such a model knows ids only."""
    names = {SETTINGS_FILE, *(name for wanted in LAYOUTS.values() for name in wanted)}
    return load_tokenizer(folder) if any((folder / name).is_file() for name in names) else None


def _processor(folder: Path) -> "Processor | None":
    """How pictures are made; None where the folder does not say: such a model knows pixels only."""
    if not (folder / PROCESSOR).is_file():
        return None
    from .data.images.published import processor

    return processor(read_json(folder, PROCESSOR), folder / PROCESSOR)


def _built(config: Any, found: Tensors) -> nn.Module:
    """In float32, or in float64 where the file has such: no bit of it is lost."""
    with torch.random.fork_rng(devices=[]):
        net = build(config)
    return net.double() if torch.float64 in found.dtypes.values() else net


def fits(tokenizer: AnyTokenizer, config: Any, place: object) -> None:
    """Raises WeightsError QKV-041 where the tokenizer can give an id that the model has no vector for."""
    if tokenizer.vocab_size > config.vocab_size:
        raise WeightsError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, the model {config.vocab_size}",
            place=place,
            fix="use the tokenizer the model was trained with",
            code="QKV-041",
        )


def _special(folder: Path) -> dict[str, Any]:
    """The ids of generation_config.json by which answers begin and end: there they hold, whatever config.json says."""
    if not os.path.lexists(folder / GENERATION):
        return {}
    known, _ = generation(folder)
    made = {key: known[key] for key in ("eos_token_id", "decoder_start_token_id") if key in known}
    return {key: value for key, value in made.items() if value not in (-1, [])}


def _decode(values: Mapping[str, Any], folder: Path, net: nn.Module) -> SearchConfig:
    """How to search: what qkv noted, else what the publisher did."""
    noted = values.get("qkv")
    place = folder / CONFIG
    if isinstance(noted, dict):
        return from_dict(SearchConfig, noted.get("decode", {}), place=place, at="qkv.decode.")
    if not hasattr(net, "step"):
        return SearchConfig()  # old files of readers have keys of writing, too
    if isinstance(net, Translator):
        net.banned = ()  # what may not come, a publisher's settings say (Marian: bad_words_ids)
    known, others = generation(folder)
    config, unheard = asked(known, net)
    unheard |= {*others, *(k for k in ("begin_suppress_tokens",) if known.get(k))}
    if unheard:
        seen = (
            f"{folder}: settings of generation that qkv does not have: {', '.join(sorted(unheard))}"
        )
        warnings.warn(f"{seen}; its answers may differ from the publisher's", stacklevel=2)
    return config


def asked(known: Mapping[str, Any], net: nn.Module) -> tuple[SearchConfig, set[str]]:
    """A publisher's settings of generation as ours, ranked and stopped as transformers does; and the keys left out."""
    made = {ours: known[theirs] for theirs, ours in ALWAYS.items() if theirs in known}
    how, unheard = _chosen(known)
    if isinstance(net, Translator):  # their lengths count the token the decoder starts from
        made = {ours: known[n] - 1 for n, ours in LENGTHS.items() if known.get(n, 1) > 1} | made
        out = {}
    else:  # ... or the prompt, and only a prompt of one token has its first answer forced
        first = _ids(made.pop("forced_first", None))
        out = {"min_length": known.get("min_length"), "forced_bos_token_id": first}
    if "max_new_tokens" in made and "min_new_tokens" in made:
        made["min_new_tokens"] = min(made["min_new_tokens"], made["max_new_tokens"])
    words = [*known.get("bad_words_ids", ()), *([i] for i in known.get("suppress_tokens", ()))]
    own = (net.eos_id, *getattr(net, "more_eos", ()))
    made["eos_ids"] = tuple(i for i in _ids(known.get("eos_token_id")) if i not in own)
    made["forced_first"] = next(iter(_ids(made.get("forced_first"))), None)
    last = _ids(known.get("forced_eos_token_id"))
    made["forced_last"] = next(iter(last), None)
    # several forced ids are a tie; a bad word never is an end, and what is suppressed may be
    ends = {*own, *made["eos_ids"]} & set(known.get("suppress_tokens", ()))
    out |= {"forced_eos_token_id": len(last) > 1, "suppress_tokens": ends}
    config = SearchConfig(
        **{"early_stopping": False} | made | how,
        penalty="length",
        bad_words=tuple(tuple(word) for word in words),
    )
    return config, unheard | {key for key, is_out in out.items() if is_out}


def _chosen(known: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """How tokens are chosen, with transformers' defaults; and the keys that have no place here."""
    temperature = known.get("temperature", 1.0) if known.get("do_sample") else 0.0
    if temperature > 0:
        k, p = known.get("top_k", 50), known.get("top_p", 1.0)  # 0 and 1 turn them off
        made = {"temperature": temperature, "top_k": k or None, "top_p": p if 0 < p < 1 else None}
        out = {"num_beams": known.get("num_beams", 1) > 1, "top_p": p == 0}
    else:
        out = {"length_penalty": abs(known.get("length_penalty", 1.0)) > LARGEST_ALPHA}
        heard = [key for key in BEAMS if key in known and not out.get(key)]
        made = {BEAMS[key]: known[key] for key in heard}
    return made, {key for key, is_out in out.items() if is_out}


def _ids(value: int | list[int] | None) -> list[int]:
    """An id, a list of them or none -> the ids; -1 stands for none."""
    ids = value if isinstance(value, list) else [value]
    return [i for i in ids if i is not None and i >= 0]


def told(config: SearchConfig, net: Any) -> dict[str, Any]:
    """The inverse of `asked`, and the ids a publisher names: what transformers' generate needs to search as we do.

    Settings that it does not have, such as the GNMT penalty, are left to config.json's "qkv"."""
    names = ALWAYS | (SAMPLED if config.sampling else BEAMS if config.penalty == "length" else {})
    made = {theirs: getattr(config, ours) for theirs, ours in names.items()}
    if config.sampling:  # where a filter is absent, transformers has one of its own
        made |= {"top_k": config.top_k or 0, "top_p": config.top_p or 1.0}
    words = [list(word) for word in config.bad_words] + [[i] for i in getattr(net, "banned", ())]
    ends = [net.eos_id, *getattr(net, "more_eos", ()), *config.eos_ids]
    ends = [i for i in dict.fromkeys(ends) if i >= 0]
    made |= {
        "do_sample": config.sampling,
        "bad_words_ids": words or None,
        "forced_eos_token_id": config.forced_last,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": net.pad_id,
        "decoder_start_token_id": net.start_id if isinstance(net, Translator) else None,
    }
    return {key: value for key, value in made.items() if value is not None}


def files(model: Model, weights: Mapping[str, Tensor] | None = None, card: str = "") -> Files:
    """The content of a model folder: as transformers has it where it knows such a model, else our own."""
    held = state_of(model.net) if weights is None else weights
    module = FAMILIES[family_of(model.config)]
    text = model.tokenizer.files() if model.has_tokenizer else {}
    noted: dict[str, Any] = {} if model.has_pictures else {"decode": to_dict(model.decode)}
    if model.template is not None:
        noted["chat"] = to_dict(model.template)
    if model.habits != Habits():
        noted["reading"] = to_dict(model.habits)
    common = {"README.md": (card or f"# {model!r}\n").encode()}
    if model.processor is not None:
        from .data.images.published import settings

        common[PROCESSOR] = _json(settings(model.processor))
    if hasattr(module, "HF") and (theirs := published(module, model.config, held)) is not None:
        config = module.to_hf(model.config) | dict(model.spelled)
        config["qkv"] = {"format_version": FORMAT} | noted
        tied = module.table(model.config).tied
        made = weight_files(theirs, tied=tied, kinds=model.kinds)
        config["dtype"] = str(widest(made)).removeprefix("torch.")
        if model.has_tokenizer:
            text = hf_files(model.tokenizer, getattr(model.net, "max_positions", None))
        if hasattr(model.net, "start"):
            made = made | {GENERATION: _json(told(model.decode, model.net))}
        return {CONFIG: _json(config), **made, **common, **text}
    config = {
        "format_version": FORMAT,
        "model_type": f"qkv-{model.family}",
        "model": describe(model.config),
    } | noted
    return {CONFIG: _json(config), **weight_files(held, kinds=model.kinds), **common, **text}


def published(module: Any, config: Any, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors under their names; None where a published configuration cannot say all of ours: a GPT-2 without biases,
    for one, is ours alone.  What is None in ours was derived, and may be written out in theirs."""
    try:
        theirs = hf.theirs(module, config, held)
        again = hf.fitted(module, hf.configured(module, module.to_hf(config)), theirs)
    except (QkvError, KeyError):
        return None
    said = {f.name: getattr(config, f.name) for f in fields(config)}
    quiet = getattr(module, "UNSAID", ())  # how it learns, which no published form says
    same = all(v is None or n in quiet or getattr(again, n) == v for n, v in said.items())
    return theirs if same else None


def widest(made: Files) -> torch.dtype:
    """The type that transformers is to read all tensors in, so that no digit of any is lost."""
    held = [t for x in made.values() if isinstance(x, File) for t in x.tensors.values()]
    return reduce(torch.promote_types, (t.dtype for t in held))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
