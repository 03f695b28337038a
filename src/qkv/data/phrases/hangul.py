"""Hangul arithmetic and the particles that depend on a final consonant.

A syllable is 0xAC00 + (initial * 21 + vowel) * 28 + final (The Unicode Standard, section 3.12).
"""

from qkv.errors import DataError

INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
FINALS = " ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
FIRST, LAST = 0xAC00, 0xD7A3


def split(syllable: str) -> tuple[str, str, str]:
    """한 -> (ㅎ, ㅏ, ㄴ); the final is "" when the syllable is open.  Raises DataError otherwise."""
    if len(syllable) != 1 or not FIRST <= ord(syllable) <= LAST:
        raise DataError(
            f"not a Hangul syllable: {syllable!r}", fix="write the word in Hangul", code="QKV-033"
        )
    rest, final = divmod(ord(syllable) - FIRST, 28)
    initial, vowel = divmod(rest, 21)
    return INITIALS[initial], VOWELS[vowel], FINALS[final].strip()


def join(initial: str, vowel: str, final: str = "") -> str:
    """(ㅎ, ㅏ, ㄴ) -> 한.  The inverse of `split`."""
    place = INITIALS.index(initial) * 21 + VOWELS.index(vowel)
    return chr(FIRST + place * 28 + FINALS.index(final or " "))


def final(word: str) -> str:
    """The final consonant of a word's last syllable, "" when it is open."""
    return split(word[-1:])[2]


def close(word: str, consonant: str) -> str:
    """Put a final consonant under the last syllable: (가, ㄹ) -> 갈; "" opens it: (갈, "") -> 가."""
    initial, vowel, _ = split(word[-1:])
    return word[:-1] + join(initial, vowel, consonant)


def particle(word: str, pair: str) -> str:
    """Attach the form that fits: `pair` is "after a consonant/after a vowel".

    particle(책, 을/를) = 책을, particle(커피, 을/를) = 커피를; 으로/로 also takes 로 after ㄹ."""
    closed, opened = pair.split("/") if "/" in pair else (pair, pair)
    last = final(word)
    return word + (opened if not last or (closed == "으로" and last == "ㄹ") else closed)
