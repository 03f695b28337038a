"""What `qkv doctor` says about this machine."""

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..messages import t
from .out import size

NEEDED = (
    "torch",
    "numpy",
    "safetensors",
    "tokenizers",
    "sentencepiece",
    "rich",
    "sacrebleu",
    "matplotlib",
)
OPTIONAL = {"tensorboard": "track", "mlflow": "track"}
LOW_DISK = 1 << 30


@dataclass(frozen=True)
class Check:
    """ok: True fine, False must be mended, None worth knowing."""

    name: str
    ok: bool | None
    seen: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def checks() -> list[Check]:
    """Python, packages, threads, bf16, accelerator, fonts, disk."""
    return [_python(), *_packages(), *_torch(), _font(), _disk()]


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    seen = f"{platform.python_version()}, {platform.machine()} {platform.system()}"
    return Check(
        "python", ok, seen, "" if ok else t("needs 3.11 or newer", "3.11 이상이 필요합니다")
    )


def _packages() -> list[Check]:
    found = []
    for name in NEEDED:
        try:
            found.append(Check(name, True, version(name)))
        except PackageNotFoundError:
            found.append(Check(name, False, t("missing", "없음"), f"pip install {name}"))
    for name, extra in OPTIONAL.items():
        try:
            found.append(Check(name, True, version(name)))
        except PackageNotFoundError:
            found.append(
                Check(name, None, t("not installed", "설치 안 됨"), f"pip install 'qkv[{extra}]'")
            )
    return found


def _torch() -> list[Check]:
    try:
        import torch

        from ..parts.hardware import has_bf16
    except ImportError as e:
        return [Check("torch", False, str(e).split("\n")[0], "pip install torch")]
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    gpu = torch.cuda.is_available()
    bf16 = has_bf16(torch.device("cuda" if gpu else "cpu"))
    slower = t("training runs in fp32", "학습은 fp32로 합니다")
    return [
        Check(
            t("threads", "스레드"),
            True,
            t(f"{threads} on {cores} cores", f"코어 {cores}개에 {threads}개"),
        ),
        Check(
            t("accelerator", "가속기"),
            True if gpu else None,
            torch.cuda.get_device_name()
            if gpu
            else t("none; the CPU works", "없음. CPU로 동작합니다"),
        ),
        Check(
            "bf16", True if bf16 else None, t("in hardware", "하드웨어 지원") if bf16 else slower
        ),
    ]


def _font() -> Check:
    from ..look.fonts import korean_font

    name = korean_font()
    fix = (
        ""
        if name
        else t(
            "pictures romanise Hangul; install fonts-nanum",
            "그림에 로마자로 나옵니다. fonts-nanum을 설치하세요",
        )
    )
    return Check(
        t("Korean font", "한글 글꼴"), True if name else None, name or t("none", "없음"), fix
    )


def _disk() -> Check:
    free = shutil.disk_usage(".").free
    ok = free > LOW_DISK and os.access(".", os.W_OK)
    seen = t(f"{size(free)} free here", f"여기에 {size(free)} 남음")
    return Check(
        t("disk", "디스크"),
        ok,
        seen,
        "" if ok else t("free some, or work elsewhere", "공간을 비우거나 다른 곳에서 하세요"),
    )
