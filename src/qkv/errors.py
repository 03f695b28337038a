"""The error tree.  Every error has a code, a place, what was seen and what to do.

QkvError                      exit  meaning
├── UsageError                  2   a command line that cannot be obeyed
│   └── ConfigError             2   a recipe or model configuration that cannot be obeyed
├── MissingError                3   a file, folder, model or optional package that is not there
├── DataError                   1   a corpus or text that cannot be used
├── TokenizerError              1   a tokenizer file that cannot be used, or does not fit the model
├── WeightsError                1   a checkpoint that cannot be used
├── StoreError                  1   a durable write or read that failed; nothing older was lost
│   └── BusyError               1   somebody else holds the folder
├── OutOfMemoryError            4   the work does not fit; the message proposes a smaller setting
├── DivergedError               5   training stopped: losses or gradients are not finite
├── LawError                    1   `qkv doctor` found a broken law
├── FetchError                  1   a download that failed or does not verify
├── InternalError               1   a fault of qkv itself; `--debug` shows where
├── Preempted                  75   stopped by a signal; a checkpoint is written, run again to resume
└── Interrupted               130   Ctrl-C; a checkpoint is written first

The catalogue below lists every code: one line of English, one of Korean.  A code never changes its meaning.
"""

from collections.abc import Iterator
from contextlib import contextmanager

CATALOGUE: dict[str, tuple[str, str]] = {
    # usage and configuration
    "QKV-001": ("wrong command line", "명령줄이 올바르지 않습니다"),
    "QKV-010": ("unknown setting", "알 수 없는 설정입니다"),
    "QKV-011": ("setting of the wrong type", "설정의 자료형이 다릅니다"),
    "QKV-012": ("setting out of range", "설정값이 범위를 벗어났습니다"),
    "QKV-013": ("settings that contradict each other", "설정끼리 서로 맞지 않습니다"),
    "QKV-014": ("configuration file that cannot be read", "설정 파일을 읽을 수 없습니다"),
    "QKV-015": ("required setting missing", "꼭 필요한 설정이 없습니다"),
    # missing things
    "QKV-020": ("file not found", "파일을 찾을 수 없습니다"),
    "QKV-021": ("model not found", "모델을 찾을 수 없습니다"),
    "QKV-022": ("optional package missing", "선택 패키지가 설치되어 있지 않습니다"),
    "QKV-023": ("unknown corpus", "알 수 없는 말뭉치입니다"),
    # data
    "QKV-030": ("text that is not UTF-8", "UTF-8이 아닌 글입니다"),
    "QKV-031": ("line counts differ", "두 파일의 줄 수가 다릅니다"),
    "QKV-032": ("no usable line", "쓸 수 있는 줄이 없습니다"),
    "QKV-033": ("malformed record", "형식이 잘못된 줄입니다"),
    "QKV-034": ("column not found", "열을 찾을 수 없습니다"),
    "QKV-035": ("data changed during training", "학습 중에 데이터가 바뀌었습니다"),
    "QKV-036": ("compressed file that cannot be read", "압축 파일을 읽을 수 없습니다"),
    "QKV-037": ("input too long", "입력이 너무 깁니다"),
    "QKV-038": ("picture that cannot be used", "쓸 수 없는 그림입니다"),
    # tokenizer
    "QKV-040": ("tokenizer that cannot be read", "토크나이저를 읽을 수 없습니다"),
    "QKV-041": ("tokenizer that does not fit the model", "토크나이저가 모델과 맞지 않습니다"),
    "QKV-042": ("tokenizer that cannot be trained", "토크나이저를 학습할 수 없습니다"),
    # weights
    "QKV-050": ("checkpoint that cannot be read", "체크포인트를 읽을 수 없습니다"),
    "QKV-051": ("tensors missing or unexpected", "텐서가 모자라거나 남습니다"),
    "QKV-052": ("tensor of the wrong shape", "텐서의 모양이 다릅니다"),
    "QKV-053": ("tensor holds non-finite numbers", "텐서에 유한하지 않은 수가 있습니다"),
    "QKV-054": ("refused file format", "받지 않는 파일 형식입니다"),
    "QKV-055": ("unknown model type", "알 수 없는 모델 종류입니다"),
    # store
    "QKV-060": ("file damaged", "파일이 손상되었습니다"),
    "QKV-061": ("write failed", "쓰기에 실패했습니다"),
    "QKV-062": ("folder in use", "다른 실행이 쓰고 있는 폴더입니다"),
    "QKV-063": ("made by a newer version", "더 새로운 버전이 만든 것입니다"),
    # running
    "QKV-070": ("out of memory", "메모리가 부족합니다"),
    "QKV-071": ("training diverged", "학습이 발산했습니다"),
    "QKV-072": ("law broken", "법칙이 깨졌습니다"),
    "QKV-073": ("stopped by a signal", "신호를 받아 멈췄습니다"),
    "QKV-074": ("interrupted", "중단되었습니다"),
    "QKV-075": (
        "non-finite numbers in the model's answer",
        "모델의 답에 유한하지 않은 수가 있습니다",
    ),
    # network
    "QKV-080": ("download failed", "내려받기에 실패했습니다"),
    "QKV-081": ("download does not verify", "내려받은 파일이 검증되지 않습니다"),
    # ourselves
    "QKV-090": ("internal error", "프로그램 내부 오류입니다"),
}


class QkvError(Exception):
    """code · place · what was seen · what to do."""

    code = "QKV-001"
    exit_code = 1

    def __init__(
        self, seen: str, *, place: object = "", fix: str = "", code: str | None = None
    ) -> None:
        super().__init__(seen)
        self.seen, self.place, self.fix = seen, str(place), fix
        self.code = code or type(self).code

    def __str__(self) -> str:
        return self.line("en")

    def line(self, lang: str = "en") -> str:
        """`error[QKV-012] recipe.toml: optim.lr must be > 0 (got -1) — try optim.lr=5e-4`."""
        place = f"{self.place}: " if self.place else ""
        fix = f" — {self.fix}" if self.fix else ""
        if lang == "ko":
            return f"오류[{self.code}] {place}{CATALOGUE[self.code][1]}: {self.seen}{fix}"
        return f"error[{self.code}] {place}{self.seen}{fix}"

    def to_dict(self) -> dict[str, str]:
        return {"code": self.code, "place": self.place, "seen": self.seen, "fix": self.fix}


class UsageError(QkvError):
    code, exit_code = "QKV-001", 2


class ConfigError(UsageError):
    code = "QKV-012"


class MissingError(QkvError):
    code, exit_code = "QKV-020", 3


class DataError(QkvError):
    code = "QKV-033"


class TokenizerError(QkvError):
    code = "QKV-040"


class WeightsError(QkvError):
    code = "QKV-050"


class StoreError(QkvError):
    code = "QKV-060"


class BusyError(StoreError):
    code = "QKV-062"


class OutOfMemoryError(QkvError):
    code, exit_code = "QKV-070", 4


class DivergedError(QkvError):
    code, exit_code = "QKV-071", 5


class LawError(QkvError):
    code = "QKV-072"


class FetchError(QkvError):
    code = "QKV-080"


class InternalError(QkvError):
    code = "QKV-090"


class Preempted(QkvError):
    code, exit_code = "QKV-073", 75


class Interrupted(QkvError):
    code, exit_code = "QKV-074", 130


@contextmanager
def named(place: object) -> Iterator[None]:
    """An error of ours from within that names no place is about this one."""
    try:
        yield
    except QkvError as e:
        e.place = e.place or str(place)
        raise


def did_you_mean(word: str, known: object) -> str:
    """`Did you mean 'warmup'?`, or the list of what is known when nothing is near."""
    from difflib import get_close_matches

    names = sorted(str(k) for k in known)  # type: ignore[attr-defined]
    near = get_close_matches(word, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
