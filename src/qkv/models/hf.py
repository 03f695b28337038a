"""Published checkpoints: their config.json and tensor names, read and written without losing a bit.

A family module that takes part has
    HF             the model_type values it reads
    PREFIX         what the base model's names begin with in files of a model with a head
    from_hf(keys)  their configuration -> ours; every key is taken, expected, known to change nothing, or an error
    to_hf(config)  the inverse
    table(config)  their tensor names <-> ours
    fitted(config, tensors)  optional: what config.json leaves open and only the tensors tell"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from ..errors import ConfigError, WeightsError, did_you_mean
from ..parts.block import Activation
from ..weights.table import Table
from .encoder import Problem

# keys that say how a file was made, or how to use a model, and nothing about what it computes
SILENT = frozenset(
    "model_type architectures transformers_version torch_dtype dtype _name_or_path name_or_path "
    "_num_labels num_labels id2label label2id problem_type task_specific_params finetuning_task "
    "return_dict output_attentions output_hidden_states use_return_dict torchscript use_bfloat16 "
    "tf_legacy_loss cross_attention_hidden_size _attn_implementation_autoset "
    "use_cache gradient_checkpointing chunk_size_feed_forward tokenizer_class prefix "
    "initializer_range initializer_factor init_std _attn_implementation attn_implementation "
    "bos_token_id eos_token_id pad_token_id sep_token_id mask_token_id unk_token_id "
    "decoder_start_token_id forced_bos_token_id forced_eos_token_id bad_words_ids suppress_tokens "
    "max_length min_length num_beams num_beam_groups do_sample early_stopping temperature top_k "
    "top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size diversity_penalty "
    "encoder_no_repeat_ngram_size num_return_sequences output_scores return_dict_in_generate "
    "exponential_decay_length_penalty begin_suppress_tokens remove_invalid_values "
    "transformers_weights qkv author license created_date _commit_hash transformers.js_config".split()
)
MISSING: Any = object()
# their names of activations; of several for one formula the first is written
ACTS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
    "mish": "mish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}
PROBLEMS: dict[str, Problem] = {
    "single_label_classification": "one",
    "multi_label_classification": "many",
    "regression": "value",
}


class Keys:
    """A config.json while it is read.  Each error names the key, its value, and what is known."""

    def __init__(self, values: Mapping[str, Any], place: object = "") -> None:
        self.values, self.place = values, place
        self.used: set[str] = set()

    def take(self, name: str, default: Any = MISSING) -> Any:
        """The value of a key that changes the computation; null counts as absent.

        A default of a number or a truth value fixes the type.  Raises ConfigError QKV-011, WeightsError QKV-055."""
        self.used.add(name)
        value = self.values.get(name)
        if value is None:
            if default is MISSING:
                raise WeightsError(
                    f"config.json has no {name!r}",
                    place=self.place,
                    fix="is the file complete, and of this model?",
                    code="QKV-055",
                )
            return default
        kind = int if default is MISSING else type(default)
        if kind is float and type(value) is int:
            value = float(value)
        if kind in (int, float, bool, str) and type(value) is not kind:
            raise ConfigError(
                f"{name} must be {kind.__name__} (got {value!r})",
                place=self.place,
                fix="correct config.json",
                code="QKV-011",
            )
        return value

    def one_of(self, name: str, choices: Mapping[str, str], default: str) -> str:
        """Their word -> ours.  Raises ConfigError QKV-012."""
        value = self.take(name, default)
        if value not in choices:
            raise ConfigError(
                f"{name} = {value!r} is not computed here",
                place=self.place,
                fix=f"known: {', '.join(choices)}",
                code="QKV-012",
            )
        return choices[value]

    def act(self, name: str, default: str) -> Activation:
        """Our name of an activation.  Raises ConfigError QKV-012."""
        made: Activation = self.one_of(name, ACTS, default)  # type: ignore[assignment]
        return made

    def expect(self, name: str, *known: Any) -> None:
        """The key may be absent or null, or have one of these values: the only ones this family computes."""
        self.used.add(name)
        value = self.values.get(name)
        if value is not None and value not in known:
            raise ConfigError(
                f"{name} = {value!r} is not computed here",
                place=self.place,
                fix=f"known: {', '.join(map(repr, known))}",
                code="QKV-012",
            )

    def ignore(self, *names: str) -> None:
        """Keys that change nothing of what is computed; the caller says why."""
        self.used.update(names)

    def architecture(self, known: Mapping[str, Any], default: str) -> Any:
        """What `known` says of the first of `architectures`, or of the default where none is given."""
        listed = self.named_architectures() or [default]
        if listed[0] not in known:
            raise WeightsError(
                f"architectures = {listed!r} is not known",
                place=self.place,
                fix=did_you_mean(listed[0], known),
                code="QKV-055",
            )
        return known[listed[0]]

    def named_architectures(self) -> list[str]:
        """Raises ConfigError QKV-011."""
        listed = self.values.get("architectures") or []
        if not isinstance(listed, list) or any(type(name) is not str for name in listed):
            raise self.unkind("architectures", "a list of names", listed)
        return listed

    def share(self, name: str) -> float | None:
        """A number that may be null.  Raises ConfigError QKV-011."""
        if self.take(name, None) is None:
            return None
        made: float = self.take(name, 0.0)
        return made

    def counts(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """A list of whole numbers.  Raises ConfigError QKV-011."""
        value = self.take(name, None)
        value = list(default) if value is None else value
        if not isinstance(value, list) or any(type(i) is not int for i in value):
            raise self.unkind(name, "a list of whole numbers", value)
        return tuple(value)

    def padding(self, pad: int | None, vocab_size: int) -> int | None:
        """The id of padding, whose vector is not learned.  Raises ConfigError QKV-012 where there is none for it."""
        if pad is not None and pad >= vocab_size:
            raise ConfigError(
                f"pad_token_id {pad}, but the vocabulary has {vocab_size}",
                place=self.place,
                fix="correct config.json",
            )
        return pad

    def unkind(self, name: str, want: str, got: Any) -> ConfigError:
        return ConfigError(
            f"{name} must be {want} (got {str(got)[:60]})",
            place=self.place,
            fix="correct config.json",
            code="QKV-011",
        )

    def labels(self, default: int = 2) -> tuple[str, ...]:
        """The names of the classes, by id."""
        names = self.values.get("id2label")
        if not isinstance(names, dict):
            n = self.take("num_labels", default)
            return tuple(f"LABEL_{i}" for i in range(n))
        try:
            made = {int(i): str(name) for i, name in names.items()}
            return tuple(made[i] for i in range(len(made)))
        except (ValueError, KeyError):
            raise ConfigError(
                f"id2label must map 0 … n-1 to names (got {str(names)[:60]})",
                place=self.place,
                fix="correct config.json",
                code="QKV-011",
            ) from None

    def token(self, name: str, default: int | None = None) -> int | None:
        """A special id, or the first of several (generation may end at any of a list)."""
        value = self.values.get(name, default)
        value = value[0] if isinstance(value, list) and value else value
        return value if isinstance(value, int) else None

    def done(self) -> None:
        """Raises ConfigError QKV-010 for a key nobody asked for: it may change what the model computes."""
        # transformers 4 wrote it for every family
        if "tie_encoder_decoder" in self.values.keys() - self.used:
            self.expect("tie_encoder_decoder", False)
        for name in self.values:
            if name not in self.used and name not in SILENT:
                raise ConfigError(
                    f"config.json has {name!r} = {str(self.values[name])[:60]}, which this family does not know",
                    place=self.place,
                    fix=did_you_mean(name, sorted(self.used)),
                    code="QKV-010",
                )


def whole(keys: Keys, name: str, default: int | None = None) -> int | None:
    """A whole number that may be null, which is not the same as absent.  Raises ConfigError QKV-011."""
    if name in keys.values and keys.values[name] is None:
        keys.ignore(name)
        return None
    value: int | None = keys.take(name, default)
    if value is not None and type(value) is not int:
        seen = f"{name} must be int or null (got {value!r})"
        raise ConfigError(seen, place=keys.place, fix="correct config.json", code="QKV-011")
    return value


def eos_ids(keys: Keys, default: int | None) -> tuple[int | None, tuple[int, ...]]:
    """Their eos_token_id -> (the first, the others): generation may end at any of a list."""
    value = keys.values.get("eos_token_id", default)
    ids = value if isinstance(value, list) else [value]
    if any(i is not None and type(i) is not int for i in ids):
        seen = f"eos_token_id must be an id or a list of ids (got {str(value)[:60]})"
        raise ConfigError(seen, place=keys.place, fix="correct config.json", code="QKV-011")
    return (ids[0], tuple(ids[1:])) if ids else (None, ())


def their_labels(config: Any) -> dict[str, Any]:
    """The inverse of `Keys.labels`, and what kind of answer a head for classes learns.

    Raises ConfigError QKV-013 for one class alone, which transformers does not take."""
    if config.head == "classes" and config.problem == "one" and len(config.labels) == 1:
        raise ConfigError(
            "a published classifier has two classes or more",
            fix='name another label, or learn a number: problem = "value"',
            code="QKV-013",
        )
    made: dict[str, Any] = {}
    if config.labels:
        made["id2label"] = {str(i): name for i, name in enumerate(config.labels)}
        made["label2id"] = {name: i for i, name in enumerate(config.labels)}
    if config.head == "classes":
        made["problem_type"] = inverse(PROBLEMS)[config.problem]
    return made


def their_segments(n: int) -> int:
    """Raises ConfigError QKV-013 for a model without segments, where transformers always reads the first."""
    if n < 1:
        raise ConfigError("a published model has a segment", fix="segments = 1", code="QKV-013")
    return n


def inverse(names: Mapping[str, str]) -> dict[str, str]:
    """{theirs: ours} -> {ours: theirs}; of several names for one thing the first."""
    return {ours: theirs for theirs, ours in reversed(list(names.items()))}


THEIR_ACTS: Mapping[str, str] = inverse(ACTS)


def their_eos(config: Any) -> int | list[int] | None:
    """The inverse of `eos_ids`."""
    return [config.eos_id, *config.more_eos] if config.more_eos else config.eos_id


class Family(Protocol):
    HF: tuple[str, ...]
    PREFIX: str

    def from_hf(self, keys: Keys) -> Any: ...
    def to_hf(self, config: Any) -> dict[str, Any]: ...
    def table(self, config: Any) -> Table: ...


def family(values: Mapping[str, Any], families: Iterable[Any], place: object = "") -> Any:
    """The module that reads this model_type.  Raises WeightsError QKV-055."""
    known = {kind: module for module in families for kind in getattr(module, "HF", ())}
    kind = values.get("model_type")
    if kind not in known:
        raise WeightsError(
            f"model_type {kind!r} is not known",
            place=place,
            fix=did_you_mean(str(kind), sorted(known)),
            code="QKV-055",
        )
    return known[kind]


def configured(module: Family, values: Mapping[str, Any], place: object = "") -> Any:
    keys = Keys(values, place)
    config = module.from_hf(keys)
    keys.done()
    if (n := getattr(config, "vocab_size", 1)) < 1:
        seen = f"vocab_size must be at least 1 (got {n})"
        raise ConfigError(seen, place=place, fix="correct config.json")
    return config


def fitted(module: Family, config: Any, theirs: Mapping[str, Tensor]) -> Any:
    """The configuration, where config.json leaves something open, as the tensors have it (T5: its output matrix)."""
    return module.fitted(config, theirs) if hasattr(module, "fitted") else config


def full_names(module: Family, table: Table, stored: Iterable[str]) -> dict[str, str]:
    """{name as the table has it: name in the file}.

    Files of a bare base model leave the prefix out; of tied tensors a file may hold the second one only."""
    names, prefix = list(stored), table.prefix or module.PREFIX
    lacks = prefix and not any(name.startswith(prefix) for name in names)
    full = {table.modern(prefix + name if lacks else name): name for name in names}
    if len(full) < len(names):
        twice = next(name for name in names if name not in full.values())
        raise WeightsError(
            f"{twice} is there twice, under an old name and a new one",
            fix="fetch or convert the file again",
            code="QKV-051",
        )
    for copy, first in table.tied.items():
        if copy in full and first not in full:
            full[first] = full.pop(copy)
    return full


def ours(module: Family, config: Any, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names."""
    table = module.table(config)
    names = full_names(module, table, theirs)
    return table.forward({full: theirs[name] for full, name in names.items()})


def theirs(module: Family, config: Any, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under their names; a model without a head (head = "none") is written as a bare base model."""
    table = module.table(config)
    made = table.backward(ours)
    if getattr(config, "head", "") == "none":
        prefix = table.prefix or module.PREFIX
        return {name.removeprefix(prefix): t for name, t in made.items()}
    return made
