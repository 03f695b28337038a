"""One model of several that began with the same weights: the mean of what they learned (Wortsman et al. 2022, section 2).

python bench/soup.py OUT RUN RUN [RUN …]         # runs, or folders of models: of one configuration, with one tokenizer"""

import argparse
from pathlib import Path

import qkv
from qkv.model import Model
from qkv.models.interface import set_state, state_of


def files(model: Model) -> dict[str, bytes]:
    """Of its tokenizer; a model of pictures has none."""
    return {} if model.tokenizer is None else model.tokenizer.files()


def soup(models: list[Model]) -> Model:
    """Its weights are the mean of theirs, summed in float64."""
    first = models[0]
    for other in models[1:]:
        if other.config != first.config or files(other) != files(first):
            raise SystemExit("the models differ in configuration or tokenizer")
    states = [state_of(m.net) for m in models]
    mean = {n: sum(s[n].double() for s in states).div(len(states)).to(x.dtype) for n, x in states[0].items()}  # fmt: skip
    set_state(first.net, mean)
    return first


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+")
    args = parser.parse_args()
    soup([qkv.load(run) for run in args.runs]).save(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
