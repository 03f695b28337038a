"""G1 in small: a dozen kills at random moments, each resumed to the same bytes.  bench/kill.py makes a hundred."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "kill.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes():
    # a process of its own: a fork must not inherit this one's threads
    done = subprocess.run(
        [sys.executable, str(BENCH), "--kills", "12"], capture_output=True, text=True, timeout=900
    )
    last = done.stdout.strip().split("\n")[-1]
    assert done.returncode == 0, done.stdout + done.stderr
    made, _, rest = last.partition("/")
    assert rest.startswith(f"{made} identical") and int(made) >= 12
    assert not done.stderr
