"""What a dry run found, shown."""

from typing import TYPE_CHECKING

from ..data.report import counted, worded
from ..messages import t
from .out import duration, one_line, result, say, size, table

if TYPE_CHECKING:
    from ..dry_run import DryRun


def show_plan(plan: "DryRun") -> None:
    """Data, sizes, memory and time, a line each."""
    report = plan.report
    skipped = counted({worded(k): n for k, n in report["skipped"].items()})
    replaced = report.get("replaced", 0)
    lines, used, pictures = report["lines"], report["used"], plan.unit == "pictures"
    (what, ko), (one, ko_one) = (
        (("entries", "개"), ("pictures", "장"))
        if pictures
        else (("lines", "줄"), ("examples", "개"))
    )
    unit = t("pictures/s", "장/초") if pictures else t("target tokens/s", "목표 토큰/초")
    pieces = (
        t("tokenizer", "토크나이저"),
        t(f"{plan.vocab_size:,} pieces", f"조각 {plan.vocab_size:,}개"),
    )
    rows = [
        (
            t("data", "데이터"),
            t(
                f"{lines:,} {what}: {used:,} used, {lines - used:,} skipped",
                f"{lines:,}{ko}: {used:,}{ko} 사용, {lines - used:,}{ko} 건너뜀",
            )
            + (f" ({skipped})" if skipped else "")
            + (
                t(
                    f"; {replaced:,} with bad bytes replaced",
                    f"; 잘못된 바이트를 바꾼 것 {replaced:,}{ko}",
                )
                if replaced
                else ""
            ),
        ),
        (
            t("split", "나눔"),
            t(
                f"{plan.train_pairs:,} {one} to train on, {plan.dev_pairs:,} to check with",
                f"학습 {plan.train_pairs:,}{ko_one}, 확인 {plan.dev_pairs:,}{ko_one}",
            ),
        ),
        *([] if pictures else [pieces]),
        (
            t("model", "모델"),
            t(f"{plan.parameters:,} parameters", f"매개변수 {plan.parameters:,}개"),
        ),
        (t("memory", "메모리"), size(plan.memory_bytes)),
        (t("padding", "패딩"), f"{plan.padding:.1%}"),
        (
            t("one step", "한 스텝"),
            t(
                f"{plan.step_seconds:.3f} s, {plan.tokens_per_second:,.0f} {unit}",
                f"{plan.step_seconds:.3f}초, {plan.tokens_per_second:,.0f} {unit}",
            ),
        ),
        (t("in all", "모두"), t("about ", "약 ") + duration(plan.estimated_seconds)),
    ]
    for line in table(rows):
        result(line)
    for reason, places in report.get("examples", {}).items():
        say(t("skipped", "건너뜀") + f" ({worded(reason)}): {one_line(', '.join(places))}")
