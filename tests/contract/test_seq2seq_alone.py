"""Law of encoder–decoders: alone = padded left = padded right = mixed with other methods, lengths, parts and placements in one batch."""

from __future__ import annotations

from dataclasses import dataclass

import tiny_seq2seq
import torch
from contract.given import TOLERANCE, distance
from contract.given_seq2seq import PARTS, row, row_for, tokens
from contract.laws import law
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foreword.backbone.batch import collate
from foreword.methods import METHODS
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, VirtualTokens
from foreword.specs import Parts


@dataclass(frozen=True)
class Case:
    """One row of a batch: the method of its prompt (None for none), the prompt's length and parts, words of source and answer, soft places."""

    method: str | None
    length: int
    parts: Parts
    source: int
    answer: int
    places: tuple[float, ...]

    def tokens(self, name: str) -> VirtualTokens | None:
        if self.method is None:
            return None
        return tokens(name, self.method, self.length, parts=self.parts if METHODS[self.method]().site == "kv" else "all")

    def row(self, name: str, seed: int) -> Row:
        soft = isinstance(self.tokens(name), EmbeddingPrefix)
        at = tuple(sorted(int(place * (self.source + 2)) for place in self.places[: self.length])) if soft else ()
        return row(self.source, self.answer, at, seed)


def cases(methods: st.SearchStrategy[str | None]) -> st.SearchStrategy[Case]:
    places = st.lists(st.floats(0, 1, exclude_max=True), min_size=7, max_size=7).map(tuple)
    parts = st.one_of(st.just("all"), st.lists(st.sampled_from(PARTS), min_size=1, max_size=2, unique=True).map(tuple))
    return st.builds(Case, methods, st.sampled_from((1, 4, 7)), parts, st.integers(0, 12), st.integers(1, 6), places)


others = cases(st.sampled_from((None, *METHODS)))
quick = settings(max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@law("alone", "encoder-decoder")
@quick
@given(data=st.data())
def test_a_row_does_not_see_its_neighbours(method: str, name: str, data: st.DataObject) -> None:
    batch = [data.draw(cases(st.just(method))), *data.draw(st.lists(others, min_size=1, max_size=3))]
    model = tiny_seq2seq.frozen(name)
    rows = [case.row(name, seed) for seed, case in enumerate(batch)]
    reads = [case.tokens(name) for case in batch]
    with torch.no_grad():
        alone = [model.forward(collate([one]), read)[0] for one, read in zip(rows, reads, strict=True)]
        singly = [model.predicting(x := collate([one]), read, x.labels >= 0) for one, read in zip(rows, reads, strict=True)]
        for side in ("left", "right"):
            padded = collate(rows, pad=tiny_seq2seq.PAD, side=side)
            together = model.forward(padded, reads)
            assert together.shape[:2] == padded.ids.shape
            for b, truth in enumerate(alone):
                assert distance(together[b][padded.mask[b]], truth) < TOLERANCE
            assert distance(model.predicting(padded, reads, padded.labels >= 0), torch.cat(singly)) < TOLERANCE


@law("alone", "encoder-decoder")
def test_one_prompt_for_all_rows_equals_the_same_prompt_per_row(method: str, name: str) -> None:
    model, read = tiny_seq2seq.frozen(name), tokens(name, method)
    batch = collate([row_for(read, source, answer) for source, answer in ((3, 1), (12, 4), (7, 2))])
    with torch.no_grad():
        shared, each = model.forward(batch, read), model.forward(batch, [read] * 3)
    assert distance(shared[batch.mask], each[batch.mask]) < 1e-5


def test_a_pad_has_no_say() -> None:
    """Whatever id fills the pads, real tokens get the same logits."""
    for name in tiny_seq2seq.SEQ2SEQ:
        model, rows = tiny_seq2seq.frozen(name), [row(3, 1), row(9, 4)]
        first, second = (collate(rows, pad=pad) for pad in (tiny_seq2seq.PAD, 77))
        assert not torch.equal(first.ids, second.ids)
        assert torch.equal(model.forward(first)[first.mask], model.forward(second)[second.mask])
