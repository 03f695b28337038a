"""Asking about many texts: what one of them costs the others."""

import pytest

from qkv.cli.each import answered, numbered
from qkv.errors import ConfigError, DataError, OutOfMemoryError


def refuse(bad, error):
    """Asks for the length of texts; with one of `bad` among them it fails."""
    calls = []

    def ask(given):
        calls.append(len(given))
        if found := [i for i, x in enumerate(given) if x in bad]:
            raise error(found[0])
        return [len(x) for x in given]

    return ask, calls


def test_all_are_asked_about_at_once_and_halves_where_that_fails():
    given = [f"text{n}" for n in range(1000)]
    ask, calls = refuse({"text700"}, lambda i: DataError(f"text {i} is bad"))
    found = dict(answered(given, ask))
    assert list(found) == given
    assert isinstance(found.pop("text700"), DataError) and set(found.values()) == {5, 6, 7}
    assert len(calls) <= 2 * 10 + 1  # two halves a level, log2(1000) levels
    ask, calls = refuse(set(), DataError)
    assert len(dict(answered(given, ask))) == 1000 and calls == [1000]


@pytest.mark.parametrize(
    "error, seen, place",
    [
        (DataError("text 0 has no gap"), "text 7 has no gap", ""),
        (DataError("a prompt is long", place="prompt 0"), "a prompt is long", "prompt 7"),
        (OutOfMemoryError("the memory is used up"), "the memory is used up", "text 7"),
        (DataError("no file", place="model"), "no file", "model"),
        (ConfigError("no head"), "no head", ""),
    ],
    ids=["seen", "place", "neither", "elsewhere", "not its fault"],
)
def test_an_error_is_given_the_number_of_its_text(error, seen, place):
    found = numbered(error, 7)
    assert (found.seen, found.place) == (seen, place)


def test_memory_that_runs_out_is_an_error_of_the_text_and_a_bug_is_not():
    ask, _ = refuse({"b"}, lambda i: MemoryError())
    assert [isinstance(x, OutOfMemoryError) for _, x in answered(["a", "b", "c"], ask)] == [False, True, False]  # fmt: skip
    ask, _ = refuse({"b"}, lambda i: RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(answered(["a", "b"], ask))
