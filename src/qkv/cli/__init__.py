"""The command line: each verb parses, calls the library, prints.  torch is never imported for --help.

Results go to stdout, progress and messages to stderr; every failure is one line and an exit code (DESIGN section 7)."""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from itertools import zip_longest

from .. import __version__
from ..errors import QkvError
from ..messages import Lang, detect, language, speak
from .guard import as_error
from .out import here, one_line, say
from .parse import help_all, help_verb, parse, split

MAX_LINE = 4096  # characters of an error line


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    _open_streams()
    with warnings.catch_warnings():
        if not debug and not sys.warnoptions:
            warnings.simplefilter("ignore")
        try:
            speak(_asked(words))
            code = _main(words)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # the reader has seen enough, as in `qkv … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        except (Exception, KeyboardInterrupt) as e:
            return _report(as_error(e, words), e, debug)
        finally:
            speak(None)


def _open_streams() -> None:
    """Fill descriptors that came closed, so that no file of ours takes their place; speak UTF-8 whatever the locale."""
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _main(words: Sequence[str]) -> int:
    verb, rest = split(words)
    if verb is None:
        print(f"qkv {__version__}" if "--version" in rest else help_all(__version__))
        return 0
    args = parse(verb, rest)
    if args.help:
        print(help_verb(verb))
        return 0
    module, _, name = verb.run.partition(":")
    return int(getattr(import_module(module), name)(args) or 0)


def _asked(words: Sequence[str]) -> Lang | None:
    """The language asked for by --lang, before anything is parsed: errors in parsing speak it too."""
    for word, following in zip_longest(words, words[1:]):
        wanted = following if word == "--lang" else word.removeprefix("--lang=")
        if word.startswith("--lang") and wanted in ("en", "ko"):
            return wanted  # type: ignore[return-value]
        if word == "--":
            break
    return detect()


def _report(error: QkvError, cause: BaseException, debug: bool) -> int:
    if debug:
        import traceback

        say("".join(traceback.format_exception(cause)).rstrip("\n"))
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    say(one_line(here(error.line(language())), MAX_LINE))
    return error.exit_code
