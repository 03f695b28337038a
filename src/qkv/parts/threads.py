"""Work of many heads, shared among threads that have one thread of torch each.

torch shares out every product by itself.  Where products are small enough to stay in a core's cache, as those of blocks and
chunks, that gains nothing: two cores were 1.03 times as fast as one (docs/diary.md).  So each thread takes whole heads from
their first product to their last.  No bit depends on how many there are."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock

import torch

Work = Callable[[range], None]

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def each(n: int, work: Work) -> None:
    """work(0 … n - 1) in as many runs as torch has threads here, at the same time and without gradients."""
    threads = min(torch.get_num_threads(), n)
    if threads < 2:
        with torch.no_grad():
            return work(range(n))
    inference = torch.is_inference_mode_enabled()

    def run(part: range) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            work(part)

    cuts = [n * i // threads for i in range(threads + 1)]
    held = pool(torch.get_num_threads())
    made = [held.submit(run, range(a, b)) for a, b in zip(cuts, cuts[1:], strict=False)]
    for future in made:
        future.result()


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
