"""Marian's own tokenizer: sources and answers are cut by two models over one vocabulary, and a checkpoint as it is published is loaded."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import tiny
import tiny_seq2seq
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import MarianTokenizer

from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading import load_model as loading
from foreword.backbone.loading.load_model import load
from foreword.errors import ModelError
from foreword.evaluation.evaluate import Reader
from foreword.families.shape_reader import read_shape
from foreword.methods import recipe
from foreword.tasks.base import budget_for
from foreword.tasks.seq2seq import Seq2Seq

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses:UserWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as Marian's are published: source.spm, target.spm, vocab.json and no tokenizer.json. Answers are in capitals."""
    folder = tmp_path_factory.mktemp("marian")
    vocabulary = {"<pad>": 0, "<unk>": 1, "</s>": 2}
    for side, texts in (("source", tiny.CORPUS), ("target", [text.upper() for text in tiny.CORPUS])):
        made = io.BytesIO()
        length_budget = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2}
        SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=made, **length_budget)  # type: ignore[attr-defined]
        (folder / f"{side}.spm").write_bytes(made.getvalue())
        own = SentencePieceProcessor(model_proto=made.getvalue())  # type: ignore[call-arg]
        for index in range(own.get_piece_size()):
            vocabulary.setdefault(own.id_to_piece(index), len(vocabulary))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer"}))
    tiny_seq2seq.network("marian", tie_word_embeddings=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> FrozenModel:
    return load(folder)


def test_a_row_is_what_the_tokenizer_makes_of_both_sides(model: FrozenModel) -> None:
    inner = model.tokenizer.inner
    assert isinstance(inner, MarianTokenizer) and not inner.is_fast
    row, _ = Seq2Seq("{input}{answer}").train_row({"input": "a joy to watch", "output": "A JOY"}, model.info, budget_for(None, model.info))
    truth = inner("a joy to watch", text_target="A JOY")
    assert row.ids == (*truth["input_ids"], *truth["labels"]) and row.labels[-len(truth["labels"]) :] == tuple(truth["labels"])
    assert model.tokenizer.decode(model.tokenizer.answer("A JOY")) == "A JOY"
    assert model.tokenizer.encode("A JOY") != model.tokenizer.answer("A JOY")


def test_no_text_becomes_a_special_token(model: FrozenModel) -> None:
    for cut in (model.tokenizer.encode, model.tokenizer.answer):
        assert not {0, 2} & set(cut("a </s> joy <pad> of ▁</s>"))


def test_a_text_is_cut_to_its_budget(model: FrozenModel) -> None:
    text = "a joy to watch and a dull mess of a film that goes on and on"
    whole = len(model.tokenizer.encode(text))
    for count in (0, 1, 7, whole - 1, whole, whole + 5):
        kept = model.tokenizer.cut(text, count)
        assert text.startswith(kept) and len(model.tokenizer.encode(kept)) <= count
    assert model.tokenizer.cut(text, whole) == text and len(model.tokenizer.encode(model.tokenizer.cut(text, 20))) > 10


def test_it_predicts(model: FrozenModel) -> None:
    reader = Reader.plain(model, Seq2Seq("{input}{answer}", num_beams=2, max_new_tokens=3))
    assert [isinstance(answer.text, str) for answer in reader.predict([{"input": "a film"}, {"input": "joy"}])] == [True, True]
    assert model.tokenizer_fingerprint == load(model.name).tokenizer_fingerprint
    assert len(model.frequent_tokens(20)) == 20 and recipe("prefix-tuning").width(model.shape) == 384


def test_a_package_that_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        @staticmethod
        def from_pretrained(*_: object, **__: object) -> None:
            raise ImportError("\nMarianTokenizer requires the SentencePiece library but it was not found in your environment. Check out")

    monkeypatch.setattr(loading, "AutoTokenizer", Missing)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        f"model '{folder}' needs a package that is not installed (MarianTokenizer requires the SentencePiece library but it was not found in "
        "your environment. Check out); install it."
    )


def test_a_vocabulary_of_its_own_for_answers_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        read_shape({**tiny_seq2seq.network("marian").config.to_dict(), "share_encoder_decoder_embeddings": False})
    assert str(caught.value) == (
        "a model of type 'marian' has separate vocabularies, which are not supported; use one whose encoder and decoder share theirs."
    )
