"""Where two files of unequal length stop being translations of each other, judged by line lengths alone."""

from itertools import islice

from .lines import read_lines

MOST_LINES = 2_000_000


def suspicious(source: str, target: str) -> int:
    """The line from which the longer file seems to have d lines more, d the difference of their counts.

    Translations have a steady length ratio, r_i = log(len target_i / len source_i), so the break is at
        k* = argmin_k  sum_{i<k} |r_i - median r| + sum_{i>=k} |r_i(shifted by d) - median r|,
    a change point as in Gale & Church 1993, found by one cumulative sum.  Lines count from 1."""
    import numpy as np

    long, short = (
        np.log([1.0 + len(line.raw) for line in islice(read_lines(path), MOST_LINES)])
        for path in (source, target)
    )
    if not len(long) or not len(short):
        return 1
    if len(long) < len(short):
        long, short = short, long
    n, d = len(short), len(long) - len(short)
    straight, shifted = long[:n] - short, long[d : d + n] - short
    usual = np.median(straight)
    # straight lines before k, shifted ones from k on; k = n says that the longer file just goes on
    before = np.concatenate([[0.0], np.cumsum(np.abs(straight - usual))])
    after = np.concatenate([[0.0], np.cumsum(np.abs(shifted - np.median(shifted)))])
    cost = before + (after[-1] - after)
    return int(n - np.argmin(cost[::-1])) + 1  # the last of equals: no shift without evidence
