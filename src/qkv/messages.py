"""Every message a person reads comes in English and Korean; `t` picks by the current language.

The language is `--lang`, else QKV_LANG, else the locale (LC_ALL, LC_MESSAGES, LANG); English where none says Korean."""

import os
from contextvars import ContextVar
from typing import Literal

Lang = Literal["en", "ko"]


def detect() -> Lang:
    for name in ("QKV_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "ko" if value.lower().startswith("ko") else "en"
    return "en"


_lang: ContextVar[Lang | None] = ContextVar("lang", default=None)


def language() -> Lang:
    return _lang.get() or detect()


def speak(lang: Lang | None) -> None:
    """Choose the language of this process's messages; None goes back to the environment's."""
    _lang.set(lang)


def t(en: str, ko: str) -> str:
    return ko if language() == "ko" else en
