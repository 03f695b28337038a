"""A run's folder: `resume/` to go on from, `snapshots/` to average, `best/` and `last/` to use.

Everything goes through weights.store: a kill at any moment leaves the old folder or the new one, never half of one."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from ..config import from_dict, parse_json
from ..errors import StoreError
from ..weights import store
from ..weights.files import read_tensors, tensor_bytes
from .loop import Position, TrainConfig, Weights

ModelFiles = Callable[[Weights, dict[str, float]], Mapping[str, bytes]]


def saved_step(folder: Path) -> int | None:
    """The step that a run goes on from; None: its beginning.  Only looks: another process may be writing there."""
    try:
        return int(parse_json((folder / "resume" / "position.json").read_text("utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged: refused by name when the run goes on


class RunFolder:
    """`files` makes the content of a complete model folder from weights and their metrics."""

    def __init__(self, folder: Path, config: TrainConfig, files: ModelFiles) -> None:
        self.folder, self.config, self.files = folder, config, files

    # -- going on ---------------------------------------------------------------------------------

    def save(self, position: Position, weights: Weights, moments: Weights) -> None:
        store.write_folder(
            self.folder / "resume",
            {
                "weights.safetensors": tensor_bytes(weights),
                "moments.safetensors": tensor_bytes(moments),
                "position.json": json.dumps(asdict(position), indent=1).encode(),
            },
        )

    def restore(self) -> tuple[Position, dict[str, Tensor], dict[str, Tensor]] | None:
        folder = store.recover(self.folder / "resume")
        if not folder.is_dir():
            return None
        store.verify(folder)
        try:
            values = parse_json((folder / "position.json").read_text("utf-8"))
        except ValueError as e:
            raise StoreError(
                f"not a position: {e}", place=folder / "position.json", fix="delete resume/"
            ) from None
        position = from_dict(Position, values, place=folder / "position.json")
        weights = read_tensors(folder / "weights.safetensors")
        return position, weights, read_tensors(folder / "moments.safetensors")

    # -- snapshots --------------------------------------------------------------------------------

    def snapshot(self, step: int, weights: Weights, metrics: dict[str, float]) -> None:
        """Keep this evaluation's weights while they are among the last `average` or the `keep_best` best."""
        if self.config.average < 2 and self.config.keep_best < 2:
            return
        finite = {k: v for k, v in metrics.items() if math.isfinite(v)}
        content = {
            "model.safetensors": tensor_bytes(weights),
            "metrics.json": json.dumps(finite, sort_keys=True).encode(),
        }
        store.write_folder(self.folder / "snapshots" / f"step-{step:07d}", content)
        steps = self.steps(up_to=step)
        sign = 1 if self.config.low_is_best else -1
        ranked = sorted(steps, key=lambda s: (sign * self.value(s), s))
        keep = set(ranked[: self.config.keep_best]) | set(steps[-max(1, self.config.average) :])
        for old in set(steps) - keep:
            store.remove_folder(self.folder / "snapshots" / f"step-{old:07d}")

    def steps(self, up_to: int | None = None) -> list[int]:
        """Snapshots on disk.  Those a killed run wrote beyond `up_to` will be written again, the same."""
        found = (re.fullmatch(r"step-(\d+)", p.name) for p in self.folder.glob("snapshots/step-*"))
        steps = sorted(int(m.group(1)) for m in found if m)
        return [s for s in steps if up_to is None or s <= up_to]

    def value(self, step: int) -> float:
        path = self.folder / "snapshots" / f"step-{step:07d}" / "metrics.json"
        value = parse_json(path.read_text("utf-8")).get(self.config.metric)
        worst = float("inf") if self.config.low_is_best else float("-inf")
        return float(value) if isinstance(value, (int, float)) else worst

    def average(self, n: int) -> Weights | None:
        """The mean of the last n snapshots, summed in float64 (Vaswani et al. 2017, section 6.1)."""
        steps = self.steps()[-n:]
        if len(steps) < 2:
            return None
        total: Weights = {}
        for step in steps:
            folder = self.folder / "snapshots" / f"step-{step:07d}"
            store.verify(folder)
            for name, tensor in read_tensors(folder / "model.safetensors").items():
                total[name] = total[name] + tensor.double() if name in total else tensor.double()
        kinds = read_tensors(
            self.folder / "snapshots" / f"step-{steps[-1]:07d}" / "model.safetensors"
        )
        return {k: (v / len(steps)).to(kinds[k].dtype) for k, v in total.items()}

    # -- models to use ----------------------------------------------------------------------------

    def model(self, name: str, weights: Weights, metrics: dict[str, float]) -> None:
        store.write_folder(self.folder / name, self.files(weights, metrics))
