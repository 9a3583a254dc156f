"""Law: alone = padded left = padded right = mixed with other methods, lengths and placements in one batch."""

from __future__ import annotations

from dataclasses import dataclass

import tiny
import torch
from contract.given import TOLERANCE, distance, labelled, tokens, words
from contract.laws import family, law
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foreword.backbone.batch import collate
from foreword.methods import METHODS
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, VirtualTokens
from foreword.specs import Layers, Window

MAX_WORDS = 16  # longer than the models' windows


@dataclass(frozen=True)
class Case:
    """One row of a batch: the method of its prompt (None for none), the prompt's length, window and layers, the row's words and soft places."""

    method: str | None
    length: int
    window: Window
    layers: Layers
    num_words: int
    places: tuple[float, ...]

    def tokens(self, name: str) -> VirtualTokens | None:
        if self.method is None or METHODS[self.method]().site not in family(name).sites:
            return None
        layers = self.layers if METHODS[self.method]().site == "kv" else "all"
        return tokens(name, self.method, self.length, window=self.window, layers=layers)

    def row(self, name: str, seed: int) -> Row:
        ids = (tiny.BOS, *words(self.num_words, seed))
        soft = isinstance(self.tokens(name), EmbeddingPrefix)
        at = tuple(sorted(int(place * len(ids)) for place in self.places[: self.length])) if soft else ()
        return labelled(ids, at, (-100, *words(self.num_words, seed + 1)))


def cases(methods: st.SearchStrategy[str | None]) -> st.SearchStrategy[Case]:
    places = st.lists(st.floats(0, 1), min_size=7, max_size=7).map(tuple)
    windows, layers = st.sampled_from(("pinned", "model")), st.sampled_from(("all", "last:1", (0,)))
    return st.builds(Case, methods, st.sampled_from((1, 4, 7)), windows, layers, st.integers(1, MAX_WORDS), places)


others = cases(st.sampled_from((None, *METHODS)))
quick = settings(max_examples=5, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@law("alone")
@quick
@given(data=st.data())
def test_a_row_does_not_see_its_neighbours(method: str, name: str, data: st.DataObject) -> None:
    batch = [data.draw(cases(st.just(method))), *data.draw(st.lists(others, min_size=1, max_size=3))]
    check(name, batch)


def check(name: str, batch: list[Case]) -> None:
    model = tiny.frozen(name)
    rows = [case.row(name, seed) for seed, case in enumerate(batch)]
    reads = [case.tokens(name) for case in batch]
    with torch.no_grad():
        alone = [model.forward(collate([row]), read)[0] for row, read in zip(rows, reads, strict=True)]
        for side in ("left", "right"):
            padded = collate(rows, pad=tiny.PAD, side=side)
            together = model.forward(padded, reads)
            assert together.shape[:2] == padded.ids.shape
            for b, truth in enumerate(alone):
                assert distance(together[b][padded.mask[b]], truth) < TOLERANCE
        picked = model.predicting(padded, reads, padded.labels >= 0)
        singly = [model.predicting(x := collate([row]), read, x.labels >= 0) for row, read in zip(rows, reads, strict=True)]
        assert distance(picked, torch.cat(singly)) < TOLERANCE


@law("alone")
def test_one_prompt_for_all_rows_equals_the_same_prompt_per_row(method: str, name: str) -> None:
    model, read = tiny.frozen(name), tokens(name, method)
    at = (0,) * read.length if isinstance(read, EmbeddingPrefix) else ()
    batch = collate([Row(words(count), at) for count in (3, 12, 7)], pad=tiny.PAD)
    shared, each = model.forward(batch, read), model.forward(batch, [read] * 3)
    assert distance(shared[batch.mask], each[batch.mask]) < 1e-5


def test_a_pad_has_no_say() -> None:
    """Whatever id fills the pads, real tokens get the same logits."""
    model, rows = tiny.frozen("gpt2"), [Row(words(3)), Row(words(9))]
    read = [tokens("gpt2", "prefix-tuning"), None]
    first, second = (collate(rows, pad=pad) for pad in (tiny.PAD, 77))
    assert not torch.equal(first.ids, second.ids)
    assert torch.equal(model.forward(first, read)[first.mask], model.forward(second, read)[second.mask])
