"""Every verb and every option of the command line, as data, in English and Korean.

The parser, the help texts and the test that freezes the command line all read this table."""

from dataclasses import dataclass
from typing import Any, Literal

from ..messages import t

Group = Literal["make", "use", "see", "data"]
GROUPS: dict[Group, tuple[str, str]] = {
    "make": ("Make", "만들기"),
    "use": ("Use", "쓰기"),
    "see": ("See", "들여다보기"),
    "data": ("Data", "데이터"),
}


@dataclass(frozen=True, kw_only=True)
class Opt:
    """One option, or one positional word when the name has no dashes."""

    name: str
    en: str
    ko: str
    metavar: str = ""  # empty: a flag that takes no value
    default: Any = None
    low: int | None = None  # given: a whole number of at least this
    usual: int = 100  # the number that an error proposes, where there is no default
    least: float | None = None  # given: a number of at least this
    choices: tuple[str, ...] = ()
    short: str = ""
    many: bool = (
        False  # a positional that takes all remaining words; an option that may be repeated
    )
    optional: bool = False  # a positional that may be left out

    @property
    def key(self) -> str:
        return self.name.lstrip("-").replace("-", "_")

    @property
    def positional(self) -> bool:
        return not self.name.startswith("-")

    @property
    def shown(self) -> str:
        if self.positional:
            word = self.metavar or self.name.upper()
            word += " …" if self.many else ""
            return f"[{word}]" if self.optional else word
        return f"{self.name} {self.metavar}".strip()

    @property
    def help(self) -> str:
        return t(self.en, self.ko)


@dataclass(frozen=True, kw_only=True)
class Verb:
    name: str
    group: Group
    run: str  # module:function
    en: str
    ko: str
    opts: tuple[Opt, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        return t(self.en, self.ko)

    @property
    def usage(self) -> str:
        words = [o.shown for o in self.opts if o.positional]
        needed = [o.shown for o in self.opts if o.name == "--model" and not o.optional]
        return " ".join(["qkv", self.name, *words, *needed, "[options]"])


COMMON = (
    Opt(name="--json", en="print JSON on standard output", ko="결과를 JSON으로 출력"),
    Opt(
        name="--lang",
        metavar="en|ko",
        choices=("en", "ko"),
        en="language of messages (else QKV_LANG, else the locale)",
        ko="메시지 언어 (없으면 QKV_LANG, 그다음 로캘)",
    ),
    Opt(
        name="--debug",
        en="show the trace-back of an unexpected error",
        ko="예상하지 못한 오류의 호출 경로를 출력",
    ),
    Opt(name="--help", short="-h", en="show this help", ko="이 도움말 보기"),
)
VERSION = Opt(name="--version", en="show the version", ko="버전 보기")

MODEL = Opt(
    name="--model",
    metavar="RUN",
    en="a run, a model folder, or an id",
    ko="실행 폴더, 모델 폴더 또는 이름",
)
BEAM = Opt(
    name="--beam",
    metavar="N",
    low=1,
    usual=4,
    en="hypotheses kept while searching; 1 is greedy (else the recipe's)",
    ko="탐색 중에 남겨 둘 후보 수. 1은 그리디 (없으면 recipe 값)",
)
BATCH = Opt(
    name="--batch-tokens",
    metavar="N",
    default=4096,
    low=1,
    en="tokens per batch; smaller needs less memory",
    ko="한 묶음의 토큰 수. 줄이면 메모리를 덜 씁니다",
)
ROOT = Opt(
    name="--root",
    metavar="DIR",
    default="runs",
    en="the folder that holds the runs",
    ko="실행들이 있는 폴더",
)
TO = Opt(name="-o", metavar="FILE", en="write to FILE", ko="FILE에 저장")

TEXT = Opt(
    name="text",
    many=True,
    optional=True,
    en="what to read; @FILE: each line of a file; - or none: standard input",
    ko="읽을 글. @FILE: 파일의 모든 줄, - 또는 없음: 표준 입력",
)
WHOLE = Opt(
    name="--whole",
    en="@FILE, and standard input, is one text with all its lines",
    ko="@FILE과 표준 입력을 줄로 나누지 않고 글 하나로 읽음",
)
LONGEST = Opt(
    name="--max-new-tokens",
    metavar="N",
    low=1,
    en="longest answer, in tokens (else the model's own limit, or 128)",
    ko="답의 최대 토큰 수 (없으면 모델의 한도, 또는 128)",
)
SAMPLING = (
    Opt(
        name="--temperature",
        metavar="T",
        least=0.0,
        en="0 takes the likeliest token; 1 draws by the model's own probabilities",
        ko="0이면 가장 그럴듯한 토큰, 1이면 모델의 확률대로 뽑음",
    ),
    Opt(
        name="--top-k",
        metavar="K",
        low=1,
        en="draw among the K likeliest tokens",
        ko="가장 그럴듯한 K개 중에서 뽑음",
    ),
    Opt(
        name="--top-p",
        metavar="P",
        least=0.0,
        en="draw among the likeliest tokens that hold this share of probability",
        ko="확률의 합이 P가 되는 상위 토큰 중에서 뽑음",
    ),
    Opt(name="--seed", metavar="N", default=0, low=0, en="of what is drawn", ko="뽑기의 시드"),
    Opt(
        name="--repetition-penalty",
        metavar="X",
        least=0.0,
        en="divide the score of what was already said; 1 is off",
        ko="이미 나온 토큰의 점수를 나눔. 1이면 끔",
    ),
)
STOP = Opt(
    name="--stop",
    metavar="TEXT",
    many=True,
    en="end before this text; may be repeated",
    ko="이 글이 나오기 전에 멈춤. 여러 번 쓸 수 있습니다",
)

VERBS: tuple[Verb, ...] = (
    Verb(
        name="demo",
        group="make",
        run="qkv.cli.demo:demo",
        en="train a small Korean-English translator in about 3 minutes and look inside",
        ko="작은 한영 번역기를 3분 남짓 학습하고 속을 들여다보기",
        opts=(
            Opt(
                name="--again",
                en="train anew although a finished run is there",
                ko="끝난 실행이 있어도 새로 학습",
            ),
        ),
        examples=("qkv demo",),
    ),
    Verb(
        name="init",
        group="make",
        run="qkv.cli.make:init",
        en="print a commented recipe to start from",
        ko="주석이 달린 학습 설정(recipe)을 출력",
        opts=(
            Opt(
                name="name",
                optional=True,
                en="which one; without it, the list",
                ko="이름. 없으면 목록을 보여 줍니다",
            ),
            TO,
        ),
        examples=("qkv init", "qkv init ko-en > my.toml"),
    ),
    Verb(
        name="train",
        group="make",
        run="qkv.cli.make:train",
        en="train a model from a recipe, or resume it",
        ko="recipe대로 모델을 학습하거나 이어서 학습",
        opts=(
            Opt(
                name="recipe",
                en="a TOML file, or a run folder to go on with",
                ko="TOML 파일. 실행 폴더를 주면 이어서 학습합니다",
            ),
            Opt(
                name="settings",
                metavar="key=value",
                many=True,
                optional=True,
                en="settings of the recipe to change, e.g. optim.lr=1e-3",
                ko="바꿀 설정. 예: optim.lr=1e-3",
            ),
            Opt(
                name="--dry-run",
                en="show data, size, memory and time; train nothing",
                ko="학습하지 않고 데이터, 크기, 메모리, 시간만 보기",
            ),
            Opt(
                name="--new",
                en="begin a new run although an unfinished one could go on",
                ko="이어서 할 실행이 있어도 새로 시작",
            ),
            ROOT,
        ),
        examples=("qkv train my.toml --dry-run", "qkv train my.toml train.steps=4000"),
    ),
    Verb(
        name="eval",
        group="make",
        run="qkv.cli.use:evaluate",
        en="score a model on a file of pairs",
        ko="문장 쌍 파일로 모델을 평가",
        opts=(
            Opt(name="run", en="a run or a model folder", ko="실행 폴더 또는 모델 폴더"),
            Opt(
                name="file",
                en="TSV, CSV or JSON lines, builtin:phrases/test; of pictures a folder, tar, idx or COCO file",
                ko="TSV, CSV, JSON lines, builtin:phrases/test. 그림이면 폴더, tar, idx, COCO 파일",
            ),
            Opt(
                name="reference",
                optional=True,
                en="what belongs to FILE: its translations, line by line; the labels of an idx file; the folder of a COCO file's pictures",
                ko="FILE에 딸린 것: 줄이 맞는 정답 번역 파일, idx 파일의 레이블 파일, COCO 파일의 그림 폴더",
            ),
            Opt(
                name="--plot",
                metavar="PNG",
                en="draw quality by source length into this file",
                ko="원문 길이별 품질을 이 파일에 그림",
            ),
            Opt(
                name="--metrics",
                metavar="LIST",
                default="bleu,chrf",
                en="bleu, chrf, chrf++, ter, exact; by commas",
                ko="bleu, chrf, chrf++, ter, exact를 쉼표로",
            ),
            Opt(
                name="--source",
                metavar="COLUMN",
                default="0",
                en="the source column: a number from 0, or its name in the header",
                ko="원문 열: 0부터 세는 번호 또는 머리줄의 이름",
            ),
            Opt(
                name="--target",
                metavar="COLUMN",
                default="1",
                en="the reference column",
                ko="정답 번역 열",
            ),
            Opt(
                name="--tokenize",
                metavar="NAME",
                default="13a",
                en="BLEU's words: 13a, none, char, intl, zh, ko-mecab …",
                ko="BLEU의 단어 나누기: 13a, none, char, intl, zh, ko-mecab …",
            ),
            Opt(name="--lowercase", en="ignore case", ko="대소문자를 구별하지 않음"),
            BEAM,
            BATCH,
        ),
        examples=("qkv eval runs/ko-en-1 test.tsv --beam 4",),
    ),
    Verb(
        name="runs",
        group="make",
        run="qkv.cli.make:runs",
        en="list the runs; `runs slim RUN` drops what only resuming needs",
        ko="실행 목록. `runs slim RUN`은 재개에만 쓰는 파일을 지웁니다",
        opts=(
            Opt(
                name="words",
                metavar="slim RUN",
                many=True,
                optional=True,
                en="runs to slim",
                ko="가볍게 할 실행 폴더",
            ),
            ROOT,
        ),
        examples=("qkv runs", "qkv runs slim runs/ko-en-1"),
    ),
    Verb(
        name="translate",
        group="use",
        run="qkv.cli.use:translate",
        en="translate text, files or standard input",
        ko="글, 파일, 표준 입력을 번역",
        opts=(
            Opt(
                name="text",
                many=True,
                optional=True,
                en="what to translate; @FILE: each line of a file; - or none: standard input",
                ko="번역할 글. @FILE: 파일의 모든 줄, - 또는 없음: 표준 입력",
            ),
            MODEL,
            BEAM,
            Opt(
                name="--nbest",
                metavar="N",
                default=1,
                low=1,
                en="translations to show for each text; the beam is at least as wide",
                ko="글마다 보여 줄 번역 수. 빔은 적어도 그만큼 넓습니다",
            ),
            Opt(
                name="--max-new-tokens",
                metavar="N",
                low=1,
                en="longest translation (else what the model allows)",
                ko="번역의 최대 토큰 수 (없으면 모델에 맞춤)",
            ),
            BATCH,
        ),
        examples=(
            'qkv translate --model runs/demo-1 "커피 한잔 어때?"',
            "qkv translate --model runs/demo-1 @in.txt > out.txt",
        ),
    ),
    Verb(
        name="generate",
        group="use",
        run="qkv.cli.write:generate",
        en="continue a prompt, as it comes on a terminal",
        ko="프롬프트를 이어 쓰기. 터미널에서는 쓰는 대로 보여 줍니다",
        opts=(
            TEXT,
            MODEL,
            WHOLE,
            LONGEST,
            BEAM,
            *SAMPLING,
            STOP,
            Opt(
                name="--examples",
                metavar="FILE",
                en="a file that is put before every prompt (few-shot)",
                ko="모든 프롬프트 앞에 붙일 파일 (few-shot)",
            ),
        ),
        examples=(
            'qkv generate --model runs/shakespeare-1 "ROMEO:" --temperature 0.8',
            "qkv generate --model gpt2 --examples shots.txt @prompts.txt --json",
        ),
    ),
    Verb(
        name="chat",
        group="use",
        run="qkv.cli.write:chat",
        en="talk with a model, turn by turn",
        ko="모델과 대화하기",
        opts=(TEXT, MODEL, LONGEST, *SAMPLING),
        examples=("qkv chat --model runs/chatbot-ko-1",),
    ),
    Verb(
        name="summarize",
        group="use",
        run="qkv.cli.write:summarize",
        en="summarize text, files or standard input",
        ko="글, 파일, 표준 입력을 요약",
        opts=(TEXT, MODEL, WHOLE, LONGEST, BEAM, BATCH),
        examples=("qkv summarize --model facebook/bart-large-cnn --whole @article.txt",),
    ),
    Verb(
        name="fill",
        group="use",
        run="qkv.cli.read:fill",
        en="fill the gaps ([MASK], <mask>, <extra_id_0>) of a text",
        ko="글의 빈칸([MASK], <mask>, <extra_id_0>) 채우기",
        opts=(
            TEXT,
            MODEL,
            Opt(
                name="--n",
                metavar="N",
                default=1,
                low=1,
                en="words to show for each gap, with their probabilities",
                ko="빈칸마다 보여 줄 낱말 수와 확률",
            ),
        ),
        examples=('qkv fill --model runs/bert-1 "오늘 날씨가 <mask>."',),
    ),
    Verb(
        name="classify",
        group="use",
        run="qkv.cli.read:classify",
        en="the label of a text, of a pair parted by a tab, or of picture files",
        ko="글 (또는 탭으로 나눈 두 글), 또는 그림 파일의 분류",
        opts=(
            TEXT,
            MODEL,
            WHOLE,
            Opt(
                name="--window",
                metavar="N",
                low=0,
                en="read a longer text in windows of N tokens; 0: whole (as the model was trained)",
                ko="긴 글을 N토큰씩 나누어 읽음. 0: 통째로 (기본값: 학습한 대로)",
            ),
            Opt(
                name="--stride",
                metavar="N",
                low=0,
                en="begin a window every N tokens; 0: they do not overlap",
                ko="N토큰마다 창을 새로 시작. 0: 겹치지 않음",
            ),
        ),
        examples=(
            'qkv classify --model runs/nsmc-1 "정말 재미있다"',
            "qkv classify --model runs/authors-1 --whole @chapter.txt --window 512",
            "qkv classify --model runs/pets-1 cat.jpg dog.png --json",
        ),
    ),
    Verb(
        name="detect",
        group="use",
        run="qkv.cli.boxes:detect",
        en="find things in pictures: a label, a probability and a box of each",
        ko="그림에서 물체 찾기: 이름, 확률, 상자",
        opts=(
            Opt(
                name="pictures",
                many=True,
                optional=True,
                en="picture files; @FILE: a list of them; - or none: standard input",
                ko="그림 파일. @FILE: 목록, - 또는 없음: 표준 입력",
            ),
            MODEL,
            Opt(
                name="--threshold",
                metavar="P",
                default=0.5,
                least=0.0,
                en="leave out what is less probable",
                ko="이보다 확률이 낮은 것은 뺌",
            ),
            Opt(
                name="-o",
                metavar="PNG",
                en="draw the boxes into this file; of several pictures, into files of this folder",
                ko="상자를 그려 넣을 파일. 그림이 여럿이면 폴더",
            ),
        ),
        examples=(
            "qkv detect --model runs/shapes-1 photo.jpg -o boxes.png",
            "qkv detect --model runs/cells-1 *.jpg --threshold 0.7 --json",
        ),
    ),
    Verb(
        name="tag",
        group="use",
        run="qkv.cli.read:tag",
        en="mark names and other spans in a text",
        ko="글에서 이름 같은 구간을 표시",
        opts=(
            TEXT,
            MODEL,
            Opt(
                name="--on",
                metavar="tokens|words",
                optional=True,
                choices=("tokens", "words"),
                en="each token by itself, or words by their first token [as it was trained]",
                ko="토큰마다, 또는 낱말의 첫 토큰으로 [학습한 대로]",
            ),
        ),
        examples=('qkv tag --model runs/ner-1 "김재원은 서울에 산다"',),
    ),
    Verb(
        name="answer",
        group="use",
        run="qkv.cli.read:answer",
        en="find the answer to a question in a text",
        ko="글에서 질문의 답을 찾기",
        opts=(
            TEXT,
            MODEL,
            Opt(
                name="--context",
                metavar="TEXT",
                en="the text that holds the answer, or @FILE",
                ko="답이 들어 있는 글, 또는 @FILE",
            ),
        ),
        examples=('qkv answer --model runs/qa-1 "Who wrote it?" --context @page.txt',),
    ),
    Verb(
        name="embed",
        group="use",
        run="qkv.cli.read:embed",
        en="the vector of a text",
        ko="글의 벡터",
        opts=(
            TEXT,
            MODEL,
            WHOLE,
            Opt(
                name="--pooling",
                metavar="mean|cls|pooled",
                default="mean",
                choices=("mean", "cls", "pooled"),
                en="of all states, the first, or what the family pools",
                ko="모든 상태의 평균, 첫 상태, 또는 모델의 풀링",
            ),
            Opt(name="--normalize", en="to length 1", ko="길이를 1로"),
        ),
        examples=("qkv embed --model runs/parakqc-1 @queries.txt --json",),
    ),
    Verb(
        name="look",
        group="see",
        run="qkv.cli.see:look",
        en="draw what a model looks at, translating or reading, as HTML or PNG",
        ko="번역하거나 읽을 때의 어텐션을 HTML이나 PNG로 그리기",
        opts=(
            Opt(name="text", en="what to translate or read", ko="번역하거나 읽을 글"),
            MODEL,
            Opt(
                name="-o",
                metavar="FILE",
                many=True,
                en="att.html or att.png; may be repeated (default attention.html)",
                ko="att.html 또는 att.png. 여러 번 쓸 수 있습니다 (기본 attention.html)",
            ),
            BEAM,
        ),
        examples=('qkv look --model runs/demo-1 "커피 한잔 어때?" -o att.html -o att.png',),
    ),
    Verb(
        name="doctor",
        group="see",
        run="qkv.cli.see:doctor",
        en="check this machine, or with --model the laws a model must obey",
        ko="이 컴퓨터를 점검. --model을 주면 모델이 지켜야 할 법칙을 점검",
        opts=(
            Opt(
                name="--model",
                metavar="RUN",
                optional=True,
                en="check this model",
                ko="이 모델을 점검",
            ),
        ),
        examples=("qkv doctor", "qkv doctor --model runs/ko-en-1"),
    ),
    Verb(
        name="fetch",
        group="data",
        run="qkv.cli.data:fetch",
        en="download an open corpus from its publisher",
        ko="공개 말뭉치를 배포처에서 내려받기",
        opts=(
            Opt(
                name="name",
                optional=True,
                en="which one; without it, the list",
                ko="이름. 없으면 목록을 보여 줍니다",
            ),
            Opt(
                name="--to",
                metavar="DIR",
                default="corpora",
                en="the folder that receives it",
                ko="저장할 폴더",
            ),
            Opt(
                name="--mirror",
                metavar="URL",
                en="a mirror that has the same files",
                ko="같은 파일이 있는 미러 주소",
            ),
            Opt(
                name="--accept",
                en="take the publisher's changed file in place of the remembered one",
                ko="기억해 둔 것과 달라진 파일도 받아들임",
            ),
        ),
        examples=("qkv fetch", "qkv fetch tatoeba-ko-en"),
    ),
)
BY_NAME = {verb.name: verb for verb in VERBS}
