"""Frozen dataclasses <-> TOML and JSON, with dotted key=value overrides and "did you mean".

The reader is strict: unknown keys, wrong types and missing keys are ConfigErrors that name file, key, value and fix.
It needs only the standard library, so that the models load where nothing but torch is installed.
"""

import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError, MissingError, did_you_mean

C = TypeVar("C")
MAX_CONFIG_BYTES = 1 << 20


def from_dict(cls: type[C], values: Mapping[str, Any], *, place: object = "", at: str = "") -> C:
    """Build a frozen dataclass from plain values.  `at` is the dotted path of this table.

    Raises ConfigError on an unknown key (with a guess), a wrong type, a missing key, or what __post_init__ refuses."""
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"unknown setting {at + str(key)!r}",
                place=place,
                fix=did_you_mean(str(key), known),
                code="QKV-010",
            )
    made = {k: _value(hints[k], v, place, at + k) for k, v in values.items()}
    for name, f in known.items():
        if name not in made and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(
                f"{at}{name} is missing", place=place, fix=f"add {at}{name} = …", code="QKV-015"
            )
    try:
        return cls(**made)
    except ConfigError as e:
        if not e.place:
            e.place = str(place)
        raise


def _value(hint: Any, value: Any, place: object, at: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        rest = [a for a in args if a is not type(None)]
        for a in rest[:-1]:
            try:
                return _value(a, value, place, at)
            except ConfigError:
                continue
        return _value(rest[-1], value, place, at)
    if origin is Literal:
        if value in args and type(value) in {type(a) for a in args}:
            return value
        raise ConfigError(
            f"{at} = {value!r} is not one of its choices",
            place=place,
            fix=did_you_mean(str(value), args),
            code="QKV-012",
        )
    if is_dataclass(hint):
        if isinstance(value, Mapping):
            return from_dict(hint, value, place=place, at=at + ".")  # type: ignore[arg-type]
        raise _wrong(at, value, "a table", place)
    if origin in (tuple, list):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _wrong(at, value, "a list", place)
        return tuple(_value(args[0], v, place, f"{at}[{i}]") for i, v in enumerate(value))
    if origin is dict or hint is dict:
        if isinstance(value, Mapping):
            return dict(value)
        raise _wrong(at, value, "a table", place)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or type(value) is hint:
        return value
    raise _wrong(at, value, getattr(hint, "__name__", str(hint)), place)


def _wrong(at: str, value: Any, want: str, place: object) -> ConfigError:
    named = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}
    want = named.get(want, want)
    return ConfigError(
        f"{at} must be {want} (got {value!r})", place=place, fix=f"write {at} = …", code="QKV-011"
    )


def to_dict(config: Any) -> Any:
    """The inverse of `from_dict`: plain values, without settings that are None (TOML has no null)."""
    if is_dataclass(config):
        made = {f.name: to_dict(getattr(config, f.name)) for f in fields(config) if f.init}
        return {k: v for k, v in made.items() if v is not None}
    if isinstance(config, Mapping):
        return {k: to_dict(v) for k, v in config.items()}
    if isinstance(config, (tuple, list)):
        return [to_dict(v) for v in config]
    return config


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.  Raises MissingError, or ConfigError with the line that does not parse."""
    try:
        return tomllib.loads(_text(Path(path)))
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(
            f"not valid TOML: {e}", place=path, fix="mend that line", code="QKV-014"
        ) from None


def read_json(path: str | Path) -> Any:
    """Read strict JSON: no NaN, no duplicate keys.  Raises MissingError or ConfigError."""
    try:
        return parse_json(_text(Path(path)))
    except ValueError as e:
        raise ConfigError(
            f"not valid JSON: {e}", place=path, fix="fetch or write the file again", code="QKV-014"
        ) from None


def parse_json(text: str) -> Any:
    """Strict JSON: raises ValueError on NaN, Infinity, duplicate keys, and depth that overflows the stack."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            keys = [k for k, _ in pairs]
            raise ValueError(f"duplicate key {next(k for k in keys if keys.count(k) > 1)!r}")
        return made

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _text(path: Path) -> str:
    if not path.is_file():
        raise MissingError(f"no file {path}", place=path.parent, fix="check the path")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"{path.stat().st_size} bytes is too large for a configuration file (limit {MAX_CONFIG_BYTES})",
            place=path,
            fix="is this the right file?",
            code="QKV-014",
        )
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ConfigError(
            f"not UTF-8 at byte {e.start}", place=path, fix="save the file as UTF-8", code="QKV-014"
        ) from None


def override(values: dict[str, Any], settings: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Apply {"optim.lr": 1e-3} or ["optim.lr=1e-3"] to nested tables; returns a new dict.

    A text value is read as TOML (1e-3, true, [1, 2], "x") and, where that fails, taken as it stands."""
    if not isinstance(settings, Mapping):
        pairs = [s.partition("=") for s in settings]
        for (key, eq, _), s in zip(pairs, settings, strict=True):
            if not eq or not key:
                raise ConfigError(
                    f"{s!r} is not key=value", fix="write e.g. optim.lr=1e-3", code="QKV-010"
                )
        settings = {key.strip(): _literal(text.strip()) for key, _, text in pairs}
    out: dict[str, Any] = _copy(values)
    for dotted, value in settings.items():
        *tables, last = dotted.split(".")
        table = out
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError(
                    f"{dotted}: {name!r} is a value, not a table",
                    fix="remove the dot",
                    code="QKV-010",
                )
        table[last] = value
    return out


def _copy(values: Any) -> Any:
    return {k: _copy(v) for k, v in values.items()} if isinstance(values, dict) else values


def _literal(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def to_toml(values: Mapping[str, Any]) -> str:
    """Write plain nested tables as TOML, simple values before tables."""
    return "\n".join(_tables(values, "")).strip("\n") + "\n"


def _tables(values: Mapping[str, Any], at: str) -> list[str]:
    simple = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
    lines = [f"{_key(k)} = {_toml(v)}" for k, v in simple.items()]
    for k, v in values.items():
        if isinstance(v, Mapping):
            lines += ["", f"[{at}{_key(k)}]", *_tables(v, f"{at}{_key(k)}.")]
    return lines


def _key(key: str) -> str:
    plain = key.replace("-", "").replace("_", "")
    return key if plain.isascii() and plain.isalnum() else json.dumps(key, ensure_ascii=False)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)  # int, float (inf and nan are TOML too)
