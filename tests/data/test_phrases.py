"""Laws of the built-in phrase corpus: its grammar, and how it is split."""

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from qkv.data import phrases
from qkv.data.phrases import english as e
from qkv.data.phrases import words as w
from qkv.data.phrases.hangul import join, particle, split
from qkv.data.phrases.verbs import conjugate, respectful
from qkv.errors import ConfigError, DataError

SPLITS = ("train", "dev", "test", "hand")
GENERATED = SPLITS[:3]

# dictionary form: 해체 present, 해요체 past, -(으)면, -(으)ㄹ 거예요, -는/-고 forms; written by hand
FORMS = """
가다 가 갔어요 가면 갈 거예요 가고
오다 와 왔어요 오면 올 거예요 오고
마시다 마셔 마셨어요 마시면 마실 거예요 마시고
하다 해 했어요 하면 할 거예요 하고
먹다 먹어 먹었어요 먹으면 먹을 거예요 먹고
읽다 읽어 읽었어요 읽으면 읽을 거예요 읽고
앉다 앉아 앉았어요 앉으면 앉을 거예요 앉고
보다 봐 봤어요 보면 볼 거예요 보고
주다 줘 줬어요 주면 줄 거예요 주고
배우다 배워 배웠어요 배우면 배울 거예요 배우고
되다 돼 됐어요 되면 될 거예요 되고
보내다 보내 보냈어요 보내면 보낼 거예요 보내고
켜다 켜 켰어요 켜면 켤 거예요 켜고
쉬다 쉬어 쉬었어요 쉬면 쉴 거예요 쉬고
춥다 추워 추웠어요 추우면 추울 거예요 춥고
어렵다 어려워 어려웠어요 어려우면 어려울 거예요 어렵고
귀엽다 귀여워 귀여웠어요 귀여우면 귀여울 거예요 귀엽고
돕다 도와 도왔어요 도우면 도울 거예요 돕고
굽다 구워 구웠어요 구우면 구울 거예요 굽고
입다 입어 입었어요 입으면 입을 거예요 입고
듣다 들어 들었어요 들으면 들을 거예요 듣고
걷다 걸어 걸었어요 걸으면 걸을 거예요 걷고
닫다 닫아 닫았어요 닫으면 닫을 거예요 닫고
받다 받아 받았어요 받으면 받을 거예요 받고
짓다 지어 지었어요 지으면 지을 거예요 짓고
낫다 나아 나았어요 나으면 나을 거예요 낫고
씻다 씻어 씻었어요 씻으면 씻을 거예요 씻고
웃다 웃어 웃었어요 웃으면 웃을 거예요 웃고
모르다 몰라 몰랐어요 모르면 모를 거예요 모르고
부르다 불러 불렀어요 부르면 부를 거예요 부르고
고르다 골라 골랐어요 고르면 고를 거예요 고르고
빠르다 빨라 빨랐어요 빠르면 빠를 거예요 빠르고
들르다 들러 들렀어요 들르면 들를 거예요 들르고
푸르다 푸르러 푸르렀어요 푸르면 푸를 거예요 푸르고
쓰다 써 썼어요 쓰면 쓸 거예요 쓰고
크다 커 컸어요 크면 클 거예요 크고
바쁘다 바빠 바빴어요 바쁘면 바쁠 거예요 바쁘고
아프다 아파 아팠어요 아프면 아플 거예요 아프고
예쁘다 예뻐 예뻤어요 예쁘면 예쁠 거예요 예쁘고
슬프다 슬퍼 슬펐어요 슬프면 슬플 거예요 슬프고
그렇다 그래 그랬어요 그러면 그럴 거예요 그렇고
빨갛다 빨개 빨갰어요 빨가면 빨갈 거예요 빨갛고
하얗다 하얘 하얬어요 하야면 하얄 거예요 하얗고
좋다 좋아 좋았어요 좋으면 좋을 거예요 좋고
살다 살아 살았어요 살면 살 거예요 살고
만들다 만들어 만들었어요 만들면 만들 거예요 만들고
열다 열어 열었어요 열면 열 거예요 열고
길다 길어 길었어요 길면 길 거예요 길고
기다리다 기다려 기다렸어요 기다리면 기다릴 거예요 기다리고
있다 있어 있었어요 있으면 있을 거예요 있고
없다 없어 없었어요 없으면 없을 거예요 없고
흐리다 흐려 흐렸어요 흐리면 흐릴 거예요 흐리고
"""
OTHER_FORMS = {
    ("만들다", "는"): "만드는", ("살다", "(으)세요"): "사세요", ("살다", "ㅂ/습니다"): "삽니다",
    ("먹다", "ㅂ/습니다"): "먹습니다", ("가다", "ㅂ/습니다"): "갑니다", ("듣다", "ㅂ/습니다"): "듣습니다",
    ("만들다", "(으)ㄴ"): "만든", ("읽다", "(으)ㄴ"): "읽은", ("사다", "(으)ㄴ"): "산", ("굽다", "(으)ㄴ"): "구운",
    ("걷다", "(으)ㄹ게요"): "걸을게요", ("빨갛다", "(으)ㄴ"): "빨간", ("열다", "(으)ㄹ게요"): "열게요",
    ("쓰다", "아/어 주세요"): "써 주세요", ("고르다", "아/어 주세요"): "골라 주세요", ("짓다", "(으)세요"): "지으세요",
    ("살다", "네"): "사네", ("길다", "네요"): "기네요", ("만들다", "자"): "만들자", ("놀다", "(으)러"): "놀러",
    ("만들다", "지 마세요"): "만들지 마세요", ("듣다", "(으)면서"): "들으면서", ("덥다", "아/어서"): "더워서",
}  # fmt: skip


def closed(word: str) -> bool:
    """Has the last syllable a final consonant?  Its own arithmetic, apart from the library's."""
    return (ord(word[-1]) - 0xAC00) % 28 != 0


@pytest.fixture(scope="module")
def corpus():
    return {split: phrases.pairs(split) for split in SPLITS}


@pytest.fixture(scope="module")
def generated(corpus):
    return [pair for split in GENERATED for pair in corpus[split]]


@pytest.mark.parametrize("row", FORMS.strip().split("\n"), ids=lambda row: row.split()[0])
def test_verbs_conjugate_as_people_write_them(row):
    verb, present, past, condition, future, _, plain = row.split()
    assert conjugate(verb, "아/어") == present
    assert conjugate(verb, "았/었어요") == past
    assert conjugate(verb, "(으)면") == condition
    assert conjugate(verb, "(으)ㄹ 거예요") == future + " 거예요"
    assert conjugate(verb, "고") == plain


@pytest.mark.parametrize(("verb", "ending"), OTHER_FORMS)
def test_other_endings_join_the_stem(verb, ending):
    assert conjugate(verb, ending) == OTHER_FORMS[verb, ending]


def test_respected_subjects_take_respectful_verbs():
    forms = {
        ("먹다", "아/어요"): "드세요", ("마시다", "았/었어"): "드셨어", ("읽다", "고 있어요"): "읽고 계세요",
        ("자다", "고 있어"): "주무시고 계셔", ("가다", "(으)ㄹ 거예요"): "가실 거예요", ("듣다", "아/어요"): "들으세요",
    }  # fmt: skip
    assert {key: respectful(*key) for key in forms} == forms


def test_syllables_split_and_join_back():
    assert all(join(*split(chr(c))) == chr(c) for c in range(0xAC00, 0xD7A4))
    with pytest.raises(DataError):
        split("a")


def test_particles_follow_the_final_consonant():
    assert particle("책", "을/를") == "책을" and particle("커피", "을/를") == "커피를"
    assert particle("서울", "으로/로") == "서울로" and particle("집", "으로/로") == "집으로"
    assert particle("버스", "으로/로") == "버스로" and particle("지훈", "아/야") == "지훈아"
    assert particle("민수", "이에요/예요") == "민수예요" and particle("빵", "이랑/랑") == "빵이랑"


def test_every_particle_in_the_corpus_fits_its_noun(generated):
    after_consonant = ("은", "이", "을", "과", "으로", "이랑", "이에요", "이야", "이었어", "아")
    after_vowel = ("는", "가", "를", "와", "로", "랑", "예요", "야", "였어", "야")
    lexicon = {item.ko for value in vars(w).values() if isinstance(value, tuple) for item in value
               if hasattr(item, "ko") and " " not in item.ko}  # fmt: skip
    nouns, checked = {n for n in lexicon if n}, 0
    for token in {t.rstrip(".,?!") for ko, _ in generated for t in ko.split()}:
        for noun in (token[:-1], token[:-2], token[:-3]):
            tail = token[len(noun) :]
            if noun not in nouns or token in nouns or tail not in after_consonant + after_vowel:
                continue
            rieul = (ord(noun[-1]) - 0xAC00) % 28 == 8
            wants = (
                after_consonant if closed(noun) and not (tail == "로" and rieul) else after_vowel
            )
            assert tail in wants, token
            checked += 1
    assert checked > 500


def test_agreement_and_spelling_of_english():
    assert [e.a(x) for x in ("apple", "book", "hour", "university", "umbrella")] == [
        "an apple", "a book", "an hour", "a university", "an umbrella"]  # fmt: skip
    assert [e.third(x) for x in ("go", "have", "study", "play", "watch", "wash")] == [
        "goes", "has", "studies", "plays", "watches", "washes"]  # fmt: skip
    assert [e.past(x) for x in ("go", "study", "bake", "buy", "play")] == [
        "went", "studied", "baked", "bought", "played"]  # fmt: skip
    assert [e.gerund(x) for x in ("make", "swim", "study", "get", "see")] == [
        "making", "swimming", "studying", "getting", "seeing"]  # fmt: skip
    assert [e.plural(x) for x in ("child", "sandwich", "rice cake", "day", "city")] == [
        "children", "sandwiches", "rice cakes", "days", "cities"]  # fmt: skip


def test_articles_and_verbs_agree_throughout(generated):
    english = "\n".join(en for _, en in generated)
    assert not re.findall(r"\b[Aa] [aeiou]\w*", english)
    assert not re.findall(r"\b[Aa]n [^aeiou\W]\w*", english.replace("an hour", ""))
    assert not re.findall(r"\b(?:[Hh]e|[Ss]he|Minsu) (?:go|have|do|are|were|don't|eat|drink)\b",
                          re.sub(r"(?:[Dd]id|[Dd]oes)(?:n't)? \w+ \w+", "", english))  # fmt: skip
    assert not re.findall(r"\b(?:[Tt]hey|[Ww]e|I) (?:goes|has|does|is|doesn't)\b", english)
    assert not re.findall(r"n't \w*n't|'s 's|\b(\w+) \1\b", english)


def test_there_are_at_least_20000_distinct_pairs(generated):
    assert len(generated) == len(set(generated)) >= 20_000
    assert len({en for _, en in generated}) >= 10_000


def test_one_korean_sentence_has_one_translation(corpus):
    everything = [pair for split in SPLITS for pair in corpus[split]]
    assert len({ko for ko, _ in everything}) == len(set(everything)) == len(everything)


def test_one_english_sentence_has_few_korean_ones(generated):
    koreans: dict[str, int] = {}
    for _, en in generated:
        koreans[en] = koreans.get(en, 0) + 1
    assert max(koreans.values()) <= 4


@pytest.mark.parametrize("side", [0, 1], ids=["Korean", "English"])
def test_no_sentence_is_in_two_splits(corpus, side):
    seen: set[str] = set()
    for name in SPLITS:
        sentences = {pair[side] for pair in corpus[name]}
        assert not sentences & seen, name
        seen |= sentences


def test_held_out_words_all_occur_in_train(corpus):
    train = {word for pair in corpus["train"] for side in pair for word in side.split()}
    for name in ("dev", "test"):
        assert {word for pair in corpus[name] for side in pair for word in side.split()} <= train


def test_every_frame_occurs_in_train():
    groups, train = phrases._groups(), {en for _, en in phrases.pairs("train")}
    frames = {key.split("|")[0] for key, _, _ in groups.values()}
    assert frames == {key.split("|")[0] for en, (key, _, _) in groups.items() if en in train}
    assert len(frames) > 80


def test_dev_and_test_are_about_four_percent_each(corpus, generated):
    for name in ("dev", "test"):
        assert 0.03 < len(corpus[name]) / len(generated) < 0.05


def test_text_is_clean(corpus):
    for name in SPLITS:
        for pair in corpus[name]:
            for text in pair:
                assert unicodedata.is_normalized("NFC", text)
                assert text == " ".join(text.split()) and text[-1] in ".?!"
                assert not re.search(r"\s[.,?!]|[{}|@>=’]|[.?!]{2}", text), text
            assert re.fullmatch(r"[가-힣 ,.?!]+", pair[0]) and re.fullmatch(
                r"[A-Za-z ,.?!']+", pair[1]
            )
            assert pair[1][0].isupper() and (pair[0][-1] == "?") == (pair[1][-1] == "?")


def test_vocabulary_is_modest(generated):
    english = {word.strip(".,?!").lower() for _, en in generated for word in en.split()}
    assert 400 < len(english) <= 700


def test_hand_written_pairs_are_new_and_many(corpus):
    assert len(corpus["hand"]) >= 150
    assert ("커피 한잔 어때?", "How about coffee?") in corpus["hand"]


def test_train_holds_the_neighbours_of_the_coffee_question(corpus):
    train = dict(corpus["train"])
    asked = [en for ko, en in train.items() if ko.endswith(("한잔 어때?", "한잔 어때요?"))]
    assert len(asked) > 50 and "How about coffee?" not in train.values()
    assert any("커피 한잔 어때" in ko for ko in train)


def test_the_corpus_never_changes_by_itself():
    code = "from qkv.data import phrases as p; from hashlib import sha256; print(sha256(repr([p.pairs(s) for s in ('train', 'dev')]).encode()).hexdigest())"
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           env={"PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")}  # fmt: skip
    assert len(runs) == 1 and runs != {""}


def test_importing_needs_no_torch_and_no_generation():
    code = "import sys, qkv.data.phrases; print(sorted(m for m in sys.modules if m == 'torch' or m.endswith('phrases.talk')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_categories_are_counted(generated):
    assert set(phrases.count()) == set(phrases.CATEGORIES)
    assert sum(phrases.count().values()) == len(generated)


def test_the_page_states_the_counts_of_today(corpus):
    page = (Path(__file__).parents[2] / "docs" / "phrases.md").read_text("utf-8")
    for name, number in phrases.count().items():
        assert f"| {name} | {number:,} |" in page
    for name in SPLITS:
        assert f"{len(corpus[name]):,}" in page, name


def test_unknown_split_is_refused_with_a_guess():
    with pytest.raises(ConfigError, match="unknown split 'tset'") as caught:
        phrases.pairs("tset")
    assert "test" in caught.value.fix
