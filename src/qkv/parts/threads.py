"""Work of many heads, shared among threads that have one thread of torch each.

torch shares out every product by itself.  Where products are small enough to stay in a core's cache, as those of blocks and
chunks, that gains nothing: two cores were 1.03 times as fast as one (docs/diary.md).  So each thread takes whole heads from
their first product to their last, the next one when it is done: torch's own threads still spin for milliseconds after the last
product that was shared, and who stands behind one on a core does fewer.  No bit depends on how many there are."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock

import torch

Work = Callable[[Iterator[int]], None]

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def each(n: int, work: Work) -> None:
    """work(numbers) in as many runs as torch has threads here, at the same time and without gradients; all runs together
    draw 0 … n - 1 in this order, each of them once."""
    threads = min(torch.get_num_threads(), n)
    if threads < 2:
        with torch.no_grad():
            return work(iter(range(n)))
    inference, numbers = torch.is_inference_mode_enabled(), Numbers(n)

    def run() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            work(numbers)

    held = pool(torch.get_num_threads())
    for future in [held.submit(run) for _ in range(threads)]:
        future.result()


class Numbers:
    """0 … n - 1, drawn by several threads."""

    def __init__(self, n: int) -> None:
        self.left, self.lock = iter(range(n)), Lock()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self.lock:
            return next(self.left)


def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that are there already; torch's number of threads stays what it was here and for threads to come."""
    with _lock:
        if threads not in _pools:
            made = ThreadPoolExecutor(threads, "qkv-heads", alone)
            all_here = Barrier(threads)
            for future in [made.submit(all_here.wait) for _ in range(threads)]:
                future.result()
            torch.set_num_threads(threads)
            _pools[threads] = made
        return _pools[threads]


def alone() -> None:
    """One thread of torch for the thread that calls."""
    torch.get_num_threads()  # the first call in a thread sets the number that the others have
    torch.set_num_threads(1)
