"""Korean conjugation: a dictionary form and an ending make a surface form.

Endings are written as grammars write them:
  "고", "지 마"            joined to the stem as it is
  "(으)면", "(으)ㄹ게"      으 after a closed stem
  "아/어요", "았/었어"      vowel harmony and contraction
  "ㅂ/습니다"               ㅂ under an open stem, 습 after a closed one
Which stems are irregular is data; how each kind behaves is code.
"""

from .hangul import close, join, split

# Stems that look regular but are not.  A stem ending in one of these is irregular, e.g. 알아듣다 by 듣.
BIEUP = tuple(
    (
        "춥 덥 맵 쉽 굽 돕 곱 눕 줍 무섭 어렵 가볍 무겁 아름답 가깝 고맙 반갑 귀엽 외롭 즐겁 싱겁 뜨겁 "
        "차갑 시끄럽 더럽 어둡 두껍 부드럽"
    ).split()
)
DIGEUT = ("듣", "걷", "싣", "깨닫", "묻")  # 묻다 "ask"; 묻다 "bury" is regular and not used here
SIOT = ("짓", "낫", "붓", "잇")
HIEUT = ("떻", "렇", "빨갛", "파랗", "노랗", "하얗", "까맣")
REO = ("푸르", "이르")
REGULAR_REU = ("들르", "따르", "치르")  # 르 stems that only drop ㅡ
BRIGHT = "ㅏㅑㅗ"  # vowels that take 아
SAME = "ㅏㅓㅐㅔㅕ"  # vowels that swallow 아/어
MERGED = {"ㅗ": "ㅘ", "ㅜ": "ㅝ", "ㅣ": "ㅕ", "ㅚ": "ㅙ"}
HONORIFIC = {"먹다": "드시다", "마시다": "드시다", "자다": "주무시다", "있다": "계시다"}


def conjugate(verb: str, ending: str) -> str:
    """conjugate("듣다", "아/어요") = 들어요; conjugate("만들다", "(으)세요") = 만드세요."""
    stem = verb[:-1]
    if ending.startswith("아/어"):
        return infinitive(verb) + ending[3:]
    if ending.startswith("았/었"):
        return close(infinitive(verb), "ㅆ") + ending[3:]
    if ending.startswith("(으)"):
        return _eu(stem, ending[3:])
    last = split(stem[-1])[2]
    if ending.startswith("ㅂ/습"):
        return (stem + "습" if last not in ("", "ㄹ") else close(stem, "ㅂ")) + ending[3:]
    return (close(stem, "") if last == "ㄹ" and _drops_rieul(ending) else stem) + ending


def infinitive(verb: str) -> str:
    """The 아/어 form: 가다 가, 마시다 마셔, 춥다 추워, 모르다 몰라, 쓰다 써, 하다 해."""
    stem = verb[:-1]
    initial, vowel, last = split(stem[-1])
    if stem.endswith("하"):
        return stem[:-1] + "해"
    if last == "ㅂ" and stem.endswith(BIEUP):
        return close(stem, "") + ("와" if stem[-1] in "돕곱" else "워")
    if last == "ㄷ" and stem.endswith(DIGEUT):
        return close(stem, "ㄹ") + _a(vowel)
    if last == "ㅅ" and stem.endswith(SIOT):
        return close(stem, "") + _a(vowel)  # no contraction: 짓다 지어, not 져
    if last == "ㅎ" and stem.endswith(HIEUT):
        return stem[:-1] + join(initial, "ㅒ" if vowel == "ㅑ" else "ㅐ")
    if last:
        return stem + _a(vowel)
    if vowel == "ㅡ":
        return _after_eu(stem, initial)
    if vowel in SAME:
        return stem
    if vowel in MERGED:
        return stem[:-1] + join(initial, MERGED[vowel])
    return stem + "어"


def honorific(verb: str) -> str:
    """The verb for a respected subject: 가다 가시다, 먹다 드시다, 자다 주무시다."""
    return HONORIFIC.get(verb) or conjugate(verb, "(으)시") + "다"


def respectful(verb: str, ending: str) -> str:
    """Conjugate for a respected subject: 가세요, 드셨어, 읽고 계세요."""
    if ending.startswith("고 있"):
        return conjugate(HONORIFIC.get(verb, verb), "고 ") + respectful("있다", ending[3:])
    if ending == "어요" or ending == "아/어요":
        return honorific(verb)[:-2] + "세요"
    return conjugate(honorific(verb), {"어": "아/어"}.get(ending, ending))


def _a(vowel: str) -> str:
    return "아" if vowel in BRIGHT else "어"


def _after_eu(stem: str, initial: str) -> str:
    """Stems in ㅡ: 푸르다 푸르러; 모르다 몰라; 바쁘다 바빠, 쓰다 써."""
    if stem.endswith(REO):
        return stem + "러"
    bright = len(stem) > 1 and split(stem[-2])[1] in BRIGHT
    if stem[-1] == "르" and len(stem) > 1 and not stem.endswith(REGULAR_REU):
        return close(stem[:-1], "ㄹ") + ("라" if bright else "러")
    return stem[:-1] + join(initial, "ㅏ" if bright else "ㅓ")


def _eu(stem: str, ending: str) -> str:
    """Endings in (으): 읽으면, 가면, 살면, 추우면, 들으면, 지으면, 빨간."""
    last = split(stem[-1])[2]
    if last == "ㅂ" and stem.endswith(BIEUP):
        return _attach(close(stem, "") + "우", ending)
    if last == "ㄷ" and stem.endswith(DIGEUT):
        return _attach(close(stem, "ㄹ") + "으", ending)
    if last == "ㅅ" and stem.endswith(SIOT):
        return _attach(close(stem, "") + "으", ending)
    if last == "ㅎ" and stem.endswith(HIEUT):
        return _attach(close(stem, ""), ending)
    if last == "ㄹ":
        return _attach(close(stem, "") if _drops_rieul(ending) else stem, ending)
    return _attach(stem + "으" if last else stem, ending)


def _attach(stem: str, ending: str) -> str:
    """Join an ending that may begin with a bare consonant: (갈, ㄹ게) -> 갈게."""
    return close(stem, ending[0]) + ending[1:] if ending[0] in "ㄴㄹㅁㅂ" else stem + ending


def _drops_rieul(ending: str) -> bool:
    """ㄹ falls before ㄴ, ㅅ, ㅂ and a bare ㄹ: 사는, 사세요, 삽니다, 살 거예요."""
    first = ending[0]
    return first in "ㄴㄹㅂ" or split(first)[0] in "ㄴㅅㅂ"
