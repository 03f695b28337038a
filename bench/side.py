"""What the benchmarks share: competitors in processes of their own, measured turn by turn, and tables.

A worker is the same script started with `--worker NAME`: it prints `ready` when warm and then, for every line it is sent,
one line of JSON.  Settings of one (allocator, threads, autocast) cannot reach another, and a slow minute of the machine
falls on all."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Sample = dict[str, float]


def serve(sample: Callable[[str], Sample]) -> None:
    """The worker's end: one sample for every line of stdin."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(sample(line.strip())), flush=True)


class Worker:
    """One competitor: `python SCRIPT --worker NAME …`, alive until closed."""

    def __init__(self, script: str, name: str, options: Sequence[str], threads: int) -> None:
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, script, "--worker", name, *options]
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def read(self) -> str:
        if self.process.stdout is None:
            raise RuntimeError("a worker without stdout")
        for line in self.process.stdout:
            if line.startswith(("ready", "{")):
                return line.strip()
        raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}")

    def ask(self, what: str = "go") -> Sample:
        if self.process.stdin is None:
            raise RuntimeError("a worker without stdin")
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        made: Sample = json.loads(self.read())
        return made

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(60)


def side_by_side(
    script: str,
    names: Sequence[str],
    options: Sequence[str],
    *,
    threads: int,
    rounds: int,
    asks: Sequence[str] = ("go",),
    hold: bool = False,
) -> dict[str, dict[str, list[Sample]]]:
    """{name: {ask: samples}}: A B C … A B C …, the order turned by one each round.

    `hold` waits for a line on stdin when all are warm, so that the machine can be made quiet."""
    workers: list[Worker] = []
    try:
        for name in names:
            workers.append(Worker(script, name, options, threads))
            workers[-1].read()  # one warms up at a time
            print(f"{name} is warm", file=sys.stderr, flush=True)
        if hold:
            print("all are warm: press return to measure", file=sys.stderr, flush=True)
            sys.stdin.readline()
        found: dict[str, dict[str, list[Sample]]] = {n: {a: [] for a in asks} for n in names}
        for r in range(rounds):
            for worker in workers[r % len(workers) :] + workers[: r % len(workers)]:
                for ask in asks:
                    found[worker.name][ask].append(worker.ask(ask))
            print(f"round {r + 1} of {rounds}", file=sys.stderr, flush=True)
        return found
    finally:
        for worker in workers:
            worker.close()


def median(samples: Sequence[Sample], key: str) -> float:
    return statistics.median(s[key] for s in samples)


def machine(threads: int) -> dict[str, Any]:
    """Where it ran; the load says how far to trust it."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [s for s in cpuinfo.read_text().split("\n") if s.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    from importlib.metadata import version

    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": threads,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
        "load": [round(x, 2) for x in os.getloadavg()],
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def cell(x: object) -> str:
        return (
            f"{x:,.3g}"
            if isinstance(x, float) and abs(x) < 100
            else (f"{x:,.0f}" if isinstance(x, float) else str(x))
        )

    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(x) for x in line) + " |" for line in lines)


def report(title: str, text: str, facts: dict[str, Any], out: str | None) -> None:
    """Markdown to stdout; everything as JSON to a file where one is named."""
    where = facts["machine"]
    print(f"## {title}\n\n{text}\n")
    print(
        f"{where['cpu']}, {where['cores']} cores, {where['threads']} threads, torch {where['torch']}, "
        f"load average {where['load'][0]} at the end"
    )
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
