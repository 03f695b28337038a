"""Open corpora by name: where each lives, what it may be used for, and whom to cite.

Nothing of them is in this package.  Addresses name a commit where the publisher has commits, so that the same name
brings the same bytes; a checksum is given where it is publicly known, else the first download is remembered."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Remote:
    """A file to bring; of a zip archive, only `members` are unpacked."""

    url: str
    sha256: str | None = None
    size: int | None = None
    members: tuple[str, ...] = ()
    save_as: str = ""

    @property
    def name(self) -> str:
        return self.save_as or self.url.rpartition("/")[2]


@dataclass(frozen=True)
class OpenCorpus:
    name: str
    what: str
    files: tuple[Remote, ...]
    licence: str
    licence_url: str
    citation: str
    recipe: str  # how a recipe's [data] table names it, {folder} to be filled in


RAW = "https://raw.githubusercontent.com"
MULTI30K = f"{RAW}/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw"
NSMC = f"{RAW}/e9t/nsmc/cc0670e872d4ac27bfe36c87456783004b39ef6c"
FASHION = (
    f"{RAW}/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion"
)
INTENT = f"{RAW}/warnikchow/3i4k/cfa90c15f808becafca2d8ef8649b8b71f6bbe71/data/train_val_test"

ALL = (
    OpenCorpus(
        "tatoeba-ko-en",
        "everyday Korean-English sentence pairs of the Tatoeba project, about 6,000",
        (Remote("https://www.manythings.org/anki/kor-eng.zip", members=("kor.txt", "_about.txt")),),
        "CC BY 2.0 FR",
        "https://creativecommons.org/licenses/by/2.0/fr/",
        "Tatoeba Project, https://tatoeba.org; export by https://www.manythings.org/anki/",
        'path = "{folder}/kor.txt"  # source = 1 (Korean), target = 0 (English)',
    ),
    OpenCorpus(
        "multi30k",
        "29,000 image captions in English, German and French, with val and test 2016",
        tuple(
            Remote(f"{MULTI30K}/{split}.{language}.gz")
            for split in ("train", "val", "test_2016_flickr")
            for language in ("en", "de", "fr")
        ),
        "not stated by the publisher; images for non-commercial research and education only",
        "https://github.com/multi30k/dataset",
        "Elliott, Frank, Sima'an & Specia 2016, Multi30K, https://aclanthology.org/W16-3210",
        'source_path = "{folder}/train.de.gz", target_path = "{folder}/train.en.gz"',
    ),
    OpenCorpus(
        "tiny-shakespeare",
        "1.1 million characters of Shakespeare's plays, for character language models",
        (
            Remote(
                f"{RAW}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                1_115_394,
            ),
        ),
        "public domain (the text)",
        "https://github.com/karpathy/char-rnn",
        "Karpathy 2015, char-rnn",
        'path = "{folder}/input.txt"',
    ),
    OpenCorpus(
        "nsmc",
        "200,000 Korean film reviews, positive or negative",
        (Remote(f"{NSMC}/ratings_train.txt"), Remote(f"{NSMC}/ratings_test.txt")),
        "CC0 1.0",
        "https://creativecommons.org/publicdomain/zero/1.0/",
        "Park 2016, Naver sentiment movie corpus v1.0, https://github.com/e9t/nsmc",
        'path = "{folder}/ratings_train.txt"  # columns document, label',
    ),
    OpenCorpus(
        "fashion-mnist",
        "70,000 grey pictures (28 x 28) of ten kinds of clothing",
        (
            Remote(
                f"{FASHION}/train-images-idx3-ubyte.gz",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                26_421_880,
            ),
            Remote(
                f"{FASHION}/train-labels-idx1-ubyte.gz",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                29_515,
            ),
            Remote(
                f"{FASHION}/t10k-images-idx3-ubyte.gz",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                4_422_102,
            ),
            Remote(
                f"{FASHION}/t10k-labels-idx1-ubyte.gz",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                5_148,
            ),
        ),
        "MIT",
        "https://github.com/zalandoresearch/fashion-mnist/blob/master/LICENSE",
        "Xiao, Rasul & Vollgraf 2017, Fashion-MNIST, https://arxiv.org/abs/1708.07747",
        'path = "{folder}/train-images-idx3-ubyte.gz"',
    ),
    OpenCorpus(
        "3i4k",
        "61,000 Korean utterances with their intention (statement, question, command ...)",
        (Remote(f"{INTENT}/fci_train_val.txt"), Remote(f"{INTENT}/fci_test.txt")),
        "CC BY-SA 4.0",
        "https://creativecommons.org/licenses/by-sa/4.0/",
        "Cho et al. 2018, https://arxiv.org/abs/1811.04231",
        'path = "{folder}/fci_train_val.txt"  # columns 0 (label), 1 (text)',
    ),
    OpenCorpus(
        "chatbot-ko",
        "11,800 Korean questions with a friendly answer",
        (
            Remote(
                f"{RAW}/songys/Chatbot_data/4cf20d13fc46f5037fd1c531cd566e2dd9f72974/ChatbotData.csv"
            ),
        ),
        "MIT",
        "https://github.com/songys/Chatbot_data",
        "Song 2018, Chatbot_data_for_Korean v1.0",
        'path = "{folder}/ChatbotData.csv"  # source = "Q", target = "A"',
    ),
)
CORPORA = {corpus.name: corpus for corpus in ALL}
