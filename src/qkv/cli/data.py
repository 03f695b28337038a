"""Verbs about data: fetch."""

from ..messages import t
from .out import emit, result, say, table
from .parse import Args


def fetch(args: Args) -> None:
    """Bring an open corpus, or list those we know.  Raises MissingError QKV-023, FetchError."""
    from ..data.corpora import CORPORA

    if args.name is None:
        if args.json:
            emit([{"name": c.name, "what": c.what, "licence": c.licence} for c in CORPORA.values()])
            return
        for line in table([(c.name, c.what, c.licence) for c in CORPORA.values()]):
            result(line)
        say(t("\nnext:  qkv fetch NAME", "\n다음:  qkv fetch NAME"))
        return
    from ..data.fetch import fetch as bring
    from .live import Transfer

    folder = bring(
        args.name,
        args.to,
        base_url=args.mirror,
        accept=args.accept,
        progress=Transfer(),
        say=say,
    )
    corpus = CORPORA[args.name]
    if args.json:
        emit({"name": corpus.name, "folder": str(folder), "licence": corpus.licence})
        return
    result(str(folder))
    recipe = corpus.recipe.format(folder=folder)
    say(t(f"in a recipe's [data.train]:  {recipe}", f"recipe의 [data.train]에:  {recipe}"))
