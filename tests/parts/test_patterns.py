"""Patterns of long texts: what they are, how recipes spell them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qkv.errors import CATALOGUE, ConfigError
from qkv.parts.block import Stack, StackConfig
from qkv.parts.patterns import (
    Allowed,
    Blocks,
    Causal,
    Dilated,
    Full,
    Global,
    Window,
    causal,
    parse,
    spelled,
)
from qkv.parts.rules import draws

LEAVES = st.one_of(
    st.just(Full()),
    st.just(Causal()),
    st.builds(Window, st.integers(0, 9)),
    st.builds(Global, st.integers(0, 5)),
    st.builds(Dilated, st.integers(0, 5), st.integers(1, 4)),
    st.builds(
        Blocks,
        st.integers(1, 6),
        near=st.integers(0, 2),
        first=st.integers(0, 2),
        last=st.integers(0, 2),
        random=st.integers(0, 3),
        seed=st.integers(0, 3),
        past=st.booleans(),
    ),
)
PATTERNS = st.recursive(
    LEAVES,
    lambda p: st.one_of(st.builds(lambda a, b: a & b, p, p), st.builds(lambda a, b: a | b, p, p)),
    max_leaves=5,
)


@given(PATTERNS)
def test_what_is_spelled_is_read_again(pattern):
    assert parse(spelled(pattern)) == pattern


@pytest.mark.parametrize(
    "text, pattern",
    [
        ("window(256) | global(1)", Window(256) | Global(1)),
        (" causal&window( radius = 3 )", Causal() & Window(3)),
        ("full | causal & window(1)", Full() | (Causal() & Window(1))),
        ("(full | causal) & window(1)", (Full() | Causal()) & Window(1)),
        ("blocks(64, random=2, past=1)", Blocks(64, random=2, past=True)),
        ("dilated(2, step=3)", Dilated(2, 3)),
    ],
)
def test_a_recipe_spells_a_pattern(text, pattern):
    assert parse(text) == pattern


WRONG = {
    "windw(3)": ("QKV-010", "window"),
    "window(size=3)": ("QKV-010", "radius"),
    "window": ("QKV-015", "radius=64"),
    "dilated(3)": ("QKV-015", "step"),
    "": ("QKV-012", "window(256)"),
    "window(3": ("QKV-012", "before 'the end'"),
    "window(3) |": ("QKV-012", "before 'the end'"),
    "window(3) window(4)": ("QKV-012", "should end"),
    "window(1, 2)": ("QKV-012", "too often"),
    "window(1, radius=2)": ("QKV-012", "too often"),
    "window(-1)": ("QKV-012", "cannot read"),
    "window(1.5)": ("QKV-012", "cannot read"),
    "window(1) £": ("QKV-012", "cannot read"),
    "dilated(3, 0)": ("QKV-012", "step"),
    "blocks(0)": ("QKV-012", "size"),
    "blocks(4, past=2)": ("QKV-012", "0 or 1"),
    "dilated(step=2, 3)": ("QKV-012", "name it too"),
    "window(99999999999999)": ("QKV-012", ""),
    "(" * 40 + "full" + ")" * 40: ("QKV-012", "deep"),
    " | ".join(["full"] * 70): ("QKV-012", ""),
    "full" + " " * 600: ("QKV-012", "500"),
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_pattern_is_an_error_with_a_fix(text):
    code, word = WRONG[text]
    with pytest.raises(ConfigError) as caught:
        parse(text)
    line = str(caught.value)
    assert caught.value.code == code and code in CATALOGUE
    assert word in line and caught.value.fix and len(line) < 250


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_a_named_error(text):
    try:
        parse(text)
    except ConfigError as e:
        assert e.fix


def test_patterns_are_one_line_of_mathematics_each():
    i, j = torch.arange(20)[:, None], torch.arange(20)
    assert torch.equal(Global(2).mask(20, 20), (i < 2) | (j < 2))
    away = i - j
    assert torch.equal(Dilated(2, 3).mask(20, 20), (away.abs() <= 6) & (away % 3 == 0))
    a, c = i // 4, j // 4
    seen = ((a - c).abs() <= 1) | (a == 0) | (c == 0) | (a == 4) | (c == 4)
    assert torch.equal(Blocks(4, random=0).mask(20, 20), seen)


@pytest.mark.parametrize("n", [1, 7, 64, 65, 100])
def test_every_block_draws_as_many_others_as_there_are(n):
    """As many as asked for, none that is seen anyway, in the whole of the text; fewer where there are too few."""
    rule = Blocks(4, random=3, seed=1)
    count = -(-n // 4)
    plain, drawn = (r.mask(n, n) for r in (Blocks(4, random=0), rule))
    more = (drawn & ~plain)[::4, ::4].sum(1)
    free = (~plain)[::4, ::4].sum(1)
    assert torch.equal(more, free.clamp(max=3))
    assert torch.equal(draws(rule, count), draws(rule, count).sort(1).values)


def test_draws_are_even_and_the_seed_s():
    """12,000 draws of 3 from about 45 blocks: each block is drawn 3 · 44 / 46 ± 5 σ times in 44 rows, over 100 seeds."""
    times = torch.zeros(50)
    for seed in range(100):
        table = draws(Blocks(1, seed=seed), 50)
        times += torch.bincount(table[1:-1].flatten(), minlength=50)
    inner = times[3:-3]
    mean = float(inner.mean())
    assert abs(mean - 48 * 3 * 100 / 48) < 0.05 * mean
    assert float((inner - mean).abs().max()) < 5 * mean**0.5
    assert not torch.equal(draws(Blocks(1, seed=0), 50), draws(Blocks(1, seed=1), 50))


@given(PATTERNS, st.integers(1, 30), st.integers(0, 10))
def test_onward_never_depends_on_where_the_text_ends(pattern, n, more):
    """What a causal stack relies on: a longer text has the same beginning."""
    rule = Causal() & pattern.onward()
    assert torch.equal(rule.mask(n, n), rule.mask(n + more, n + more)[:n, :n])
    assert causal(rule)


def test_marks_see_all_and_are_seen_by_all():
    keep = torch.tensor([[True] * 6 + [False] * 2])
    marked = torch.zeros(1, 8, dtype=torch.bool)
    marked[0, [3, 7]] = True  # the second is padding: no mark
    mask = Allowed.of(Window(1), keep, marked=marked).dense()[0, 0]
    want = Window(1).mask(8, 8)
    want[3], want[:, 3] = True, True
    assert torch.equal(mask, want & keep[0])
    onward = Allowed.of(Causal() & Window(1), keep, marked=marked).dense()[0, 0]
    assert torch.equal(onward, want & Causal().mask(8, 8) & keep[0])


def test_packed_documents_count_from_their_own_beginning():
    """What a document sees does not depend on what stands before it in its row."""
    pattern = Window(1) | Global(2) | Blocks(2, random=1)
    group = torch.tensor([[0] * 5 + [1] * 7])
    mask = Allowed.of(pattern, torch.ones(1, 12, dtype=torch.bool), group=group).dense()[0, 0]
    want = torch.zeros(12, 12, dtype=torch.bool)
    want[:5, :5], want[5:, 5:] = pattern.mask(5, 5), pattern.mask(7, 7)
    assert torch.equal(mask, want)


@pytest.mark.parametrize("pattern", ["blocks(2)", "window(2) | global(1)", "dilated(1, 2)"])
def test_neighbours_do_not_change_what_a_text_may_see(pattern):
    keep = torch.arange(20) < torch.tensor([[20], [9], [0]])
    together = Allowed.of(parse(pattern), keep).dense()
    alone = Allowed.of(parse(pattern), keep[1:2, :9]).dense()
    assert torch.equal(together[1:2, :, :9, :9], alone)


def config(pattern, **more):
    return StackConfig(n_layers=2, d_model=8, n_heads=2, d_ff=16, pattern=pattern, **more)


def test_a_stack_joins_its_pattern_with_causality_and_windows():
    made = config("window(3) | global(1)", causal=True, windows=(None, 2)).patterns
    whole = Causal() & (Window(3) | Global(1))
    assert made == (whole, whole & Window(2))
    assert config("blocks(4)").patterns[0] == Blocks(4)
    assert config("blocks(4)", causal=True).patterns[0] == Causal() & Blocks(4, last=0, past=True)
    with pytest.raises(ConfigError, match="QKV-010"):
        config("windw(3)")


@pytest.mark.parametrize(
    "pattern", ["window(2) | global(1)", "blocks(3)", "dilated(2, 3)", "blocks(4, random=2) | global(2)"]
)  # fmt: skip
@pytest.mark.parametrize("some", [False, True])
def test_cached_steps_equal_one_pass(pattern, some):
    """A prompt in one pass and the rest step by step, with marked tokens in the prompt; float64, so 1e-12 is rounding."""
    torch.manual_seed(0)
    net = Stack(config(pattern, causal=True)).double().eval()
    x, keep = torch.randn(2, 23, 8).double(), torch.ones(2, 23, dtype=torch.bool)
    marked = torch.zeros(2, 23, dtype=torch.bool)
    marked[0, 1], marked[1, 4] = some, some
    with torch.no_grad():
        whole = net(x, keep, marked=marked)
        state = net.start(2, x, None, None)
        first, state = net.prompt(x[:, :7], keep[:, :7], state, marked[:, :7])
        steps = [first]
        for t in range(7, 23):
            y, state = net.step(x[:, t : t + 1], state)
            steps.append(y)
            state = state.reorder(torch.arange(2))
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("pattern", ["window(2) | global(1)", "blocks(3)"])
def test_the_future_does_not_change_the_past(pattern):
    torch.manual_seed(0)
    net = Stack(config(pattern, causal=True)).double().eval()
    x = torch.randn(1, 12, 8).double().requires_grad_()
    marked = torch.zeros(1, 12, dtype=torch.bool)
    marked[0, 9] = True
    y = net(x, torch.ones(1, 12, dtype=torch.bool), marked=marked)
    y[:, :6].sum().backward()
    assert torch.count_nonzero(x.grad[:, 6:]) == 0
