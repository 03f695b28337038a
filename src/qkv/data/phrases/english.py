"""English morphology: agreement, tenses, plurals, articles and the auxiliary verbs of a clause."""

PAST = {  # base: (past, participle), for verbs that do not add -ed
    "be": ("was", "been"), "bring": ("brought", "brought"), "build": ("built", "built"),
    "buy": ("bought", "bought"), "come": ("came", "come"), "do": ("did", "done"),
    "drink": ("drank", "drunk"), "eat": ("ate", "eaten"), "find": ("found", "found"),
    "get": ("got", "gotten"), "give": ("gave", "given"), "go": ("went", "gone"),
    "have": ("had", "had"), "leave": ("left", "left"), "lose": ("lost", "lost"),
    "make": ("made", "made"), "meet": ("met", "met"), "put": ("put", "put"),
    "read": ("read", "read"), "ride": ("rode", "ridden"), "see": ("saw", "seen"),
    "sell": ("sold", "sold"), "sing": ("sang", "sung"), "sleep": ("slept", "slept"),
    "swim": ("swam", "swum"), "take": ("took", "taken"), "teach": ("taught", "taught"),
    "wear": ("wore", "worn"), "write": ("wrote", "written"), "choose": ("chose", "chosen"),
    "feel": ("felt", "felt"), "send": ("sent", "sent"), "forget": ("forgot", "forgotten"),
}  # fmt: skip
DOUBLED = {"get", "swim", "put", "shop", "plan", "forget"}  # a stressed short vowel: getting
PLURALS = {"child": "children", "person": "people"}
BE = {"I": "am", "you": "are", "we": "are", "they": "are"}
SHORT = {"I am": "I'm", "you are": "you're", "we are": "we're", "they are": "they're",
         "he is": "he's", "she is": "she's", "it is": "it's"}  # fmt: skip
POSSESSIVE = {"I": "my", "you": "your", "he": "his", "she": "her", "it": "its", "we": "our", "they": "their"}  # fmt: skip
AN_HOUR, A_UNIT = ("hour", "honest"), ("uni", "use", "euro")


def sibilant(word: str) -> bool:
    return word.endswith(("s", "sh", "ch", "x", "z"))


def add_s(word: str) -> str:
    """bus buses, city cities, day days: the spelling shared by plurals and he/she/it verbs."""
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if sibilant(word) else "s")


def plural(noun: str) -> str:
    """The plural of the last word: orange orange -> oranges, child -> children."""
    head, _, last = noun.rpartition(" ")
    return f"{head} {PLURALS.get(last) or add_s(last)}".strip()


def third(verb: str) -> str:
    """The he/she/it form: go goes, have has, study studies."""
    return {"have": "has", "do": "does", "go": "goes", "be": "is"}.get(verb) or add_s(verb)


def past(verb: str) -> str:
    return PAST[verb][0] if verb in PAST else _regular(verb)


def participle(verb: str) -> str:
    return PAST[verb][1] if verb in PAST else _regular(verb)


def _regular(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in DOUBLED else "") + "ed"


def gerund(verb: str) -> str:
    """make making, get getting, study studying, be being."""
    if verb.endswith("e") and verb not in ("be", "see"):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if verb in DOUBLED else "") + "ing"


def a(noun: str) -> str:
    """a or an by sound: a book, an apple, an hour, a university."""
    vowel = noun[0] in "aeiouAEIOU" and not noun.startswith(A_UNIT)
    return ("an " if vowel or noun.startswith(AN_HOUR) else "a ") + noun


def be(pronoun: str, tense: str = "present") -> str:
    if tense == "past":
        return "was" if pronoun in ("I", "he", "she", "it") else "were"
    return BE.get(pronoun, "is")


def short(subject: str, auxiliary: str) -> str:
    """A pronoun and its auxiliary contract: I am -> I'm; names do not."""
    return SHORT.get(f"{subject} {auxiliary}", f"{subject} {auxiliary}")


def is_not(subject: str, auxiliary: str) -> str:
    """I'm not, he's not, Minsu isn't."""
    be = short(subject, auxiliary)
    return f"{be} not" if be in SHORT.values() else f"{be}n't"


def sentence(text: str, end: str = ".") -> str:
    """Upper-case the first letter, drop double spaces, close with a mark."""
    text = " ".join(text.split())
    return text[0].upper() + text[1:] + end
