"""Text -> ids: one Tokenizer for every kind, its training, Korean, specials, offsets and sub-word sampling."""

import os
from pathlib import Path

from .check import SETTINGS_FILE
from .config import TextConfig as TextConfig
from .export import hf_files as hf_files
from .published import Published as Published
from .tokenizer import Encoding as Encoding
from .tokenizer import Tokenizer as Tokenizer
from .train import train as train

AnyTokenizer = Tokenizer | Published


def load_tokenizer(folder: str | Path) -> AnyTokenizer:
    """The tokenizer of a run or model folder: ours where qkv_tokenizer.json lies there, else a published one."""
    ours = (Path(folder) / SETTINGS_FILE).is_file()
    return Tokenizer.load(folder) if ours else Published.load(folder)


def _quiet_fork() -> None:
    """The Rust threads do not survive a fork.  The library would print a warning in each child and go on with one
    thread; saying so beforehand leaves only the second half.  A setting of the user's is left alone."""
    name = "TOKENIZERS_PARALLELISM"
    ours: list[bool] = []

    def before() -> None:
        ours.append(name not in os.environ)
        os.environ.setdefault(name, "false")

    def after() -> None:
        if ours.pop():
            del os.environ[name]

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=after)


_quiet_fork()
