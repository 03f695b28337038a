"""Greedy, beam and sampled answers of any net that steps, each as if it stood alone; forced scores."""

from .answer import Hypothesis as Hypothesis
from .answer import SearchConfig as SearchConfig
from .answer import length_penalty as length_penalty
from .engine import Engine as Engine
from .engine import Forced as Forced
from .engine import force as force
from .search import search as search
