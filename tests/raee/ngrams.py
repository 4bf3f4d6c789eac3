"""N-grams of token ids in plain Python: they share no code with `raee`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log, sqrt

Ngram = tuple[int, ...]
"""One token, or two that follow each other."""


def plain_ngrams(ids: Sequence[int]) -> Counter[Ngram]:
    """How often each uni- and bigram occurs in a row."""
    ids = [int(i) for i in ids]
    return Counter([*((one,) for one in ids), *pairwise(ids)])


def code_of(ngram: Ngram) -> int:
    """The number of an n-gram."""
    return ngram[0] if len(ngram) == 1 else (ngram[0] + 1) * 2**32 + ngram[1]


def plain_tfidf(ids: Sequence[int], idf: Mapping[Ngram, float]) -> dict[Ngram, float]:
    """The weights of a row's n-grams, of those that have an inverse document frequency."""
    found = {n: (1 + log(count)) * idf[n] for n, count in plain_ngrams(ids).items() if n in idf}
    length = sqrt(sum(value**2 for value in found.values()))
    return {n: value / length for n, value in found.items()}
