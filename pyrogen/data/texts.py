"""Texts by name: Reuters news and the King James Bible."""

import re
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pyrogen.data.cache import cache_folder
from pyrogen.data.corpus import Corpus, Pruning, from_counts, from_text
from pyrogen.data.text import Text, check_unit, from_characters
from pyrogen.errors import DataError, MissingInputError, UsageError

__all__ = ["KJV_SHA256", "find_kjv", "kjv", "reuters"]

KJV_SHA256 = "cd45f0c9cedab8e4439bd6486c8952c77cc8b0ecc5d1f6ae3513f2039f47229d"
"""Of what ``bible -f Gen1:1-Rev22:21`` of Debian's ``bible-kjv`` prints."""


def reuters(
    *,
    min_documents: int = 1,
    max_share: float = 1.0,
    max_words: int | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Corpus:
    """Load 395 news stories of Reuters, 4,258 words, 84,010 tokens; they come with the package ``lda``.

    Raises:
        MissingInputError: where the package is not installed.
    """
    found = find_spec("lda")
    folder = Path(next(iter(found.submodule_search_locations or ()), "")) / "tests" if found else Path()
    if not (folder / "reuters.ldac").is_file():
        raise MissingInputError("Reuters comes with the package lda: pip install 'pyrogen-ppl[topics]'")
    documents = [
        [tuple(map(int, pair.split(":"))) for pair in line.split()[1:]]
        for line in (folder / "reuters.ldac").read_text(encoding="utf-8").splitlines()
    ]
    words = (folder / "reuters.tokens").read_text(encoding="utf-8").split()
    titles = [line.partition(" ")[2] for line in (folder / "reuters.titles").read_text(encoding="utf-8").splitlines()]
    cut: dict[str, Any] = {"validation": validation, "test": test, "seed": seed}
    pruning = Pruning(min_documents, max_share, max_words)
    return from_counts(documents, words, name="reuters", where=str(folder), titles=titles, pruning=pruning, **cut)


def kjv(
    *,
    unit: Literal["chapter", "book", "character", "byte"] = "chapter",
    length: int | None = None,
    stop_words: Literal["english"] | None = "english",
    min_documents: int = 5,
    max_share: float = 0.5,
    max_words: int | None = None,
    validation: float | None = None,
    test: float | None = None,
    seed: int = 0,
) -> Corpus | Text:
    """Load the King James Bible, 1,189 chapters in 66 books; ``make data`` brings it.

    By chapter or book it is a corpus of documents, as counts of words. By character or byte it is one text of 4,404,412
    characters, as Debian's ``bible-kjv`` prints it: a verse a line, which begins with its reference, such as
    ``Ge1:1 In the beginning God created the heaven and the earth.``

    Args:
        unit: chapter or book, for documents; character or byte, for a text.
        length: of a text: characters in a window; 100 if not given.
        stop_words: of documents: english leaves function words out.
        min_documents: of documents: the least number of them that a word must be in.
        max_share: likewise: the largest share of them that it may be in.
        max_words: likewise: how many words are kept, the most frequent.
        validation: the share for validation: 0.1 of documents, or 0.05 of a text, if not given.
        test: the share for test, likewise; of a text, its end.
        seed: of the cut of documents.

    Raises:
        MissingInputError: not in the cache.
        DataError: another text than the published one.
        UsageError: a setting that is out of range, or is for documents where there is a text, or the reverse.
    """
    check_unit(unit, ("chapter", "book", "character", "byte"))
    if unit in ("character", "byte"):
        if (stop_words, min_documents, max_share, max_words) != ("english", 5, 0.5, None):
            raise UsageError(f"kjv: stop_words, min_documents, max_share and max_words are for words, not for {unit}s")
        content = find_kjv().read_bytes()
        text = content if unit == "byte" else content.decode()
        return from_characters(text, name="kjv", length=length, validation=validation, test=test)
    if length is not None:
        raise UsageError(f"kjv: length is for a text: leave it out, or set unit to character, found {unit}")
    documents: dict[str, list[str]] = {}
    for line in find_kjv().read_text(encoding="utf-8").splitlines():
        reference, _, verse = line.partition(" ")
        chapter, _, _ = reference.partition(":")
        title = chapter if unit == "chapter" else re.sub(r"\d+$", "", chapter)
        documents.setdefault(title, []).append(verse)
    return from_text(
        map(" ".join, documents.values()),
        stop_words=stop_words,
        name="kjv",
        titles=list(documents),
        pruning=Pruning(min_documents, max_share, max_words),
        validation=0.1 if validation is None else validation,
        test=0.1 if test is None else test,
        seed=seed,
    )


def find_kjv() -> Path:
    """Return the path of the King James Bible in the cache, a verse a line.

    Raises:
        MissingInputError: not there.
        DataError: another text than the published one.
    """
    path = cache_folder() / "kjv.txt"
    if not path.is_file():
        raise MissingInputError(f"King James Bible: no file {path}. Run `make data` (python -m pyrogen.data.fetch)")
    found = sha256(path.read_bytes()).hexdigest()
    if found != KJV_SHA256:
        raise DataError(f"{path}: SHA-256 {found}, expected {KJV_SHA256}. Remove it and run `make data`")
    return path
