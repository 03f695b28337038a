"""Heads shared among threads: each once, the same bits with any number of threads, errors told, torch's settings kept."""

import os
from threading import Event, Lock, get_ident

import pytest
import torch

from qkv.parts import threads
from qkv.parts.dropout import Pieces
from qkv.parts.patterns import Allowed, parse
from qkv.parts.sparse import sparse


@pytest.fixture
def with_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_everything_is_done_once_without_gradients(n, count, with_threads):
    with_threads(count)
    done, alone, lock = [], [], Lock()

    def work(numbers):
        with lock:
            done.extend(numbers)
            alone.append((get_ident(), torch.get_num_threads(), torch.is_grad_enabled()))

    threads.each(n, work)
    assert sorted(done) == list(range(n))
    assert not any(grad for *_, grad in alone)
    if min(n, count) > 1:
        assert all(number == 1 and ident != get_ident() for ident, number, _ in alone)
    assert torch.get_num_threads() == count and torch.is_grad_enabled()


def test_an_error_of_one_run_is_raised_and_the_threads_go_on(with_threads):
    with_threads(2)

    def work(numbers):
        for n in numbers:
            if n == 1:
                raise ZeroDivisionError("head 1")

    with pytest.raises(ZeroDivisionError, match="head 1"):
        threads.each(2, work)
    done = []
    threads.each(2, done.extend)
    assert sorted(done) == [0, 1]


def test_who_is_done_takes_the_next(with_threads):
    """One run stands still until the other has done all the rest."""
    with_threads(2)
    done, rest = [], Event()

    def work(numbers):
        for n in numbers:
            if n == 0:
                assert rest.wait(60)
            else:
                done.append(n)
                if n == 4:
                    rest.set()

    threads.each(5, work)
    assert done == [1, 2, 3, 4]


def test_work_within_work_is_done_where_it_stands(with_threads):
    with_threads(2)
    done = []
    threads.each(2, lambda outer: [threads.each(3, done.extend) for _ in outer])
    assert sorted(done) == [0, 0, 1, 1, 2, 2]


def test_what_is_made_in_inference_mode_may_be_filled(with_threads):
    with_threads(2)
    with torch.inference_mode():
        x = torch.zeros(2)

        def work(numbers):
            for n in numbers:
                x[n] += 1  # in another mode this raises

        threads.each(2, work)
    assert x.tolist() == [1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_has_threads_of_its_own(with_threads):
    with_threads(2)
    threads.each(2, list)
    child = os.fork()
    if not child:
        done = []
        threads.each(2, done.extend)
        os._exit(0 if sorted(done) == [0, 1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("pattern", ["window(40) | global(1)", "blocks(16)", "window(33) & causal"])
def test_no_bit_depends_on_the_number_of_threads(pattern, with_threads):
    rng = torch.Generator().manual_seed(0)
    q, k, v, g = (torch.randn(2, 3, 700, 8, generator=rng) for _ in range(4))
    keep = torch.ones(2, 700, dtype=torch.bool)
    keep[1, 640:] = False
    made = []
    for count in (1, 2, 3):
        with_threads(count)
        plan = Allowed.of(parse(pattern), keep).plan(torch.float32, split=False)
        assert plan is not None
        x = [t.clone().requires_grad_() for t in (q, k, v)]
        y = sparse(*x, plan, scale=0.35, drop=Pieces(0.1, 5))
        y.backward(g)
        with torch.inference_mode():
            asked = sparse(q, k, v, plan, scale=0.35)
        made.append([y.detach(), asked, *(t.grad for t in x)])
    for other in made[1:]:
        assert all(torch.equal(a, b) for a, b in zip(made[0], other, strict=True))
