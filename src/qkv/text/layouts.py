"""Which files of a published tokenizer there are, and what the JSON files beside the vocabulary say of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import MissingError
from .gate import read_object, read_text
from .specials import ADDED, CONFIG, END, MAP, Specials, read_specials, refuse, style_of

LAYOUTS = {  # what is looked for, in this order
    "json": ("tokenizer.json",),
    "marian": ("source.spm", "target.spm", "vocab.json"),
    "wordpiece": ("vocab.txt",),
    "merges": ("vocab.json", "merges.txt"),
    "t5": ("spiece.model",),
    "mbart": ("sentencepiece.bpe.model",),
}


@dataclass(frozen=True)
class Source:
    """The files of a folder, what config.json says of the tokenizer, and where they came from (for errors)."""

    files: Mapping[str, bytes]
    model: Mapping[str, Any]  # model_type and tokenizer_class of config.json
    place: str

    def where(self, name: str) -> str:
        return f"{self.place}/{name}" if self.place else name

    def json(self, name: str) -> dict[str, Any]:
        return read_object(self.files[name], self.where(name)) if name in self.files else {}


def layout_of(source: Source) -> str:
    """The name of the first layout whose files are all there.  Raises MissingError, with what is lacking."""
    for name, wanted in LAYOUTS.items():
        lacking = [f for f in wanted if f not in source.files]
        if not lacking:
            return name
        if len(lacking) < len(wanted) and lacking != ["source.spm", "target.spm"]:
            if name == "merges" and "spiece.model" in source.files:
                continue
            raise MissingError(
                f"no tokenizer file {lacking[0]}, which belongs to {wanted[0]}",
                place=source.place,
                fix=f"copy {', '.join(wanted)} together",
            )
    if "tokenizer.model" in source.files:
        raise MissingError(
            "no tokenizer.json beside tokenizer.model, which does not say how spaces are treated",
            place=source.place,
            fix="save the tokenizer with transformers once: it writes tokenizer.json",
        )
    known = ", ".join(" + ".join(files) for files in LAYOUTS.values())
    raise MissingError("no tokenizer files", place=source.place, fix=f"one of: {known}")


@dataclass(frozen=True)
class Settings:
    """What the JSON files beside a vocabulary say: the style, its special tokens, and the other keys."""

    style: str
    specials: Specials
    config: Mapping[str, Any]

    def flag(self, name: str, default: bool | None, place: str) -> bool | None:
        value = self.config.get(name, default)
        if value is not None and type(value) is not bool:
            refuse(f"{name} is {value!r:.40}, not true or false", place)
        return value


IMPLIED = {"wordpiece": "bert", "t5": "t5", "mbart": "mbart", "marian": "marian", "json": ""}
FITS = {  # layout -> styles it may have
    "wordpiece": ("bert",),
    "merges": ("gpt2", "roberta"),
    "t5": ("t5", "bigbird"),
    "mbart": ("mbart",),
    "marian": ("marian",),
}


def read_settings(source: Source, layout: str) -> Settings:
    """Raises TokenizerError where the files name a tokenizer that is not known to cut text as this layout does."""
    files = {name: source.json(name) for name in (CONFIG, MAP, ADDED)}
    place, config = source.where(CONFIG), files[CONFIG]
    style = style_of(config, source.model, place)
    if layout == "json":
        style = "" if style is None or style.startswith("unknown:") else style
    elif style is None:
        style = IMPLIED.get(layout) or _style_of_vocabulary(source)
    elif style not in FITS[layout]:
        named = style.removeprefix("unknown:")
        refuse(
            f"{' + '.join(LAYOUTS[layout])} of {named}: these files do not say how it cuts text",
            place,
            "save the tokenizer with transformers once: it writes tokenizer.json",
        )
    return Settings(style, read_specials(files, style, source.where), config)


def _style_of_vocabulary(source: Source) -> str:
    text = read_text(source.files["vocab.json"], source.where("vocab.json"))
    return "gpt2" if f'"{END}"' in text or '"<s>"' not in text else "roberta"
