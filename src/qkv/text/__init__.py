"""Text -> ids: one Tokenizer for every kind, its training, Korean, specials, offsets and sub-word sampling."""

from .config import TextConfig as TextConfig
from .tokenizer import Encoding as Encoding
from .tokenizer import Tokenizer as Tokenizer
from .train import train as train
