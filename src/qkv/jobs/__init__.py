"""What a recipe's objective asks of a run: its data, its batches, and what an evaluation measures."""

from collections.abc import Sequence
from typing import Any, Protocol

from ..data.images.process import Processor
from ..data.objectives.chat import ChatTemplate
from ..data.report import SkipReport
from ..learn.loop import Stream, Validate
from ..model import Model
from ..readings import Habits
from ..recipe import PICTURES, TRANSLATE, Recipe
from ..text import AnyTokenizer


class Job(Protocol):
    """The data of a run, read and encoded."""

    recipe: Recipe
    report: SkipReport
    dev_report: SkipReport
    leak: int  # examples of dev that also occur in train

    @property
    def tokenizer(self) -> AnyTokenizer | None:
        """None: nothing is read but pictures."""
        ...

    @property
    def processor(self) -> Processor | None:
        """How pictures are made; None: none is read."""
        ...

    @property
    def sizes(self) -> tuple[int, int]:
        """How many examples train and dev have."""
        ...

    @property
    def longest(self) -> int:
        """Tokens of the longest row; 0: nothing is counted in tokens."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """What the data decides of [model]: vocabulary, special ids, the head and its labels."""
        ...

    @property
    def template(self) -> ChatTemplate | None:
        """How conversations are written, where the data holds any."""
        ...

    @property
    def habits(self) -> Habits:
        """How its texts are read."""
        ...

    def remarks(self, config: Any) -> Sequence[str]:
        """What a user should know of this data and a model so configured before it trains."""
        ...

    def stream(self) -> Stream: ...

    def validation(self, model: Model) -> Validate:
        """Metrics of the dev set."""
        ...

    def samples(self) -> list[dict[str, Any]]:
        """What the last evaluation wrote, for samples.jsonl; none where the objective writes nothing."""
        ...


def prepare(
    recipe: Recipe, tokenizer: AnyTokenizer | None = None, start: Model | None = None
) -> Job:
    """Read, split, learn the tokenizer where there is none, encode.  Pictures are made as `start` reads them."""
    if recipe.objective_kind == "detect":
        from .detect import DetectJob

        return DetectJob.read(recipe, start)
    if recipe.objective_kind in PICTURES:
        from .images import ImagesJob

        return ImagesJob.read(recipe, start)
    if recipe.objective_kind == TRANSLATE:
        from .pairs import PairsJob

        return PairsJob.read(recipe, tokenizer)
    from .texts import TextsJob

    return TextsJob.read(recipe, tokenizer)
