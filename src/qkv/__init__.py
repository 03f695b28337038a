"""qkv trains, runs and shows attention models.  These names are the promise; the rest may be read, and may change."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints import load as load
    from .look.record import record as record
    from .model import Model as Model
    from .model import Translation as Translation
    from .run import Run as Run
    from .run import train as train
    from .score import evaluate as evaluate

__version__ = "0.1.0"
_HOME = {
    "load": "checkpoints",
    "Model": "model",
    "Translation": "model",
    "record": "look.record",
    "train": "run",
    "evaluate": "score",
    "Run": "run",
}
__all__ = ["Model", "Run", "Translation", "evaluate", "load", "record", "train"]


def __getattr__(name: str) -> Any:
    """Import on first use: `import qkv` stays instant."""
    if name not in _HOME:
        raise AttributeError(f"module 'qkv' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
