"""Texts through encoder–decoders: seq2seq, generate and classify by label words, from rows to a trained adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_seq2seq
import torch
from contract.given_seq2seq import tokens

from foreword.adapters.adapter import Adapter
from foreword.adapters.peft_prompt import export_peft
from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.batch import collate
from foreword.errors import AdapterError, DataError, ModelError, UsageError
from foreword.evaluation.evaluate import Reader
from foreword.methods import METHODS, recipe
from foreword.tasks.base import Prediction, budget_for
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.registry import kind_of, task_from_dict
from foreword.tasks.seq2seq import Seq2Seq
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

EOS = tiny_seq2seq.EOS
EXAMPLES = [{"input": f"film {word}", "output": f"a {word}"} for word in ("good", "bad", "great", "terrible", "joy", "mess")]
PLAN = TrainPlan(steps=4, batch_size=3, eval_every=2, learning_rate=0.3, tracker="none", checkpoint_every=10)


PLAIN = "{input}{answer}"  # at the kv site {soft} has no place


def test_the_source_is_closed_and_the_answer_ends() -> None:
    model, task = tiny_seq2seq.frozen("bart"), Seq2Seq(PLAIN)
    row, cut = task.train_row(EXAMPLES[0], model.info, budget_for(None, model.info))
    encode = model.tokenizer.encode
    source, answer = [1, *encode("film good"), EOS], [*encode("a good"), EOS]
    assert row.ids == (*source, *answer) and row.labels == ((-100,) * len(source) + tuple(answer)) and not cut


def test_source_and_answer_have_a_budget_each() -> None:
    model, task = tiny_seq2seq.frozen("bart"), Seq2Seq(max_new_tokens=100)
    length_budget, long = budget_for(recipe("prompt-tuning", length=10), model.info), "ab " * 300
    row, cut = task.for_model(model.info, recipe("prompt-tuning", length=10)).train_row(
        {"input": long, "output": "ab " * 40}, model.info, length_budget
    )  # type: ignore[attr-defined]
    answer = len([label for label in row.labels if label >= 0])
    assert cut and answer > 40 and 150 < len(row.ids) - answer + 10 <= 160
    asked, cut = task.eval_row({"input": long}, model.info, length_budget, truncate=True, max_answer_tokens=task.max_answer_tokens)
    assert cut and 150 < len(asked.ids) + 10 <= 160
    with pytest.raises(DataError) as caught:
        Seq2Seq(PLAIN).train_row({"input": "a", "output": "ab " * 200}, model.info, budget_for(None, model.info))
    assert (
        str(caught.value)
        == f"an answer has {len(task.answer({'output': 'ab ' * 200}, model.info))} tokens, but tiny-bart has 160 positions for it; shorten it."
    )
    with pytest.raises(UsageError) as refused:
        Seq2Seq(max_new_tokens=159).for_model(model.info, None)
    assert str(refused.value) == (
        "max_new_tokens is 159, but tiny-bart has 160 positions for an answer and its opening tokens; ask for fewer."
    )


def test_one_beam_is_what_generate_says() -> None:
    model, read = tiny_seq2seq.frozen("mbart"), AdapterState(tokens("mbart", "prefix-tuning"))
    asked = [Seq2Seq(PLAIN).eval_feature(example, model.info, budget_for(None, model.info), truncate=False)[0] for example in EXAMPLES[:3]]
    one, four = (Seq2Seq(PLAIN, num_beams=beams, max_new_tokens=6) for beams in (1, 4))
    greedy = Generate(PLAIN, max_new_tokens=6)
    said = [prediction.text for prediction in greedy.predict(model, read, asked, 2)]
    assert [prediction.text for prediction in one.predict(model, read, asked, 2)] == said
    beams = [prediction.text for prediction in four.predict(model, read, asked, 2)]
    assert beams != said and beams == [prediction.text for prediction in four.predict(model, read, asked, 3)]
    assert "".join(greedy.stream(model, read.tokens, asked[0].rows[0])).strip() == said[0]


@torch.no_grad()
def test_label_words_are_said_by_the_decoder() -> None:
    """Checked against one plain forward pass of the stock model per label."""
    for name in ("t5", "bart"):
        model, task = tiny_seq2seq.frozen(name), Classify(("no", "yes indeed", "perhaps"), template="{text}\nLabel: {answer}")
        eval_feature, _ = task.eval_row({"text": "a film"}, model.info, budget_for(None, model.info), truncate=False)
        scores, opening = task.scores(model, None, [eval_feature])[0], list(model.answer_opening)
        for index, ids in enumerate(task.answer_ids(model.info)):
            logits = tiny_seq2seq.network(name)(
                torch.tensor([eval_feature.ids]), decoder_input_ids=torch.tensor([[*opening, *ids[:-1]]])
            ).logits
            expected = logits[0, len(opening) - 1 :].log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).mean()
            assert float(scores[index]) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_from_examples_to_an_adapter_that_reads_back(method: str, tmp_path: Path) -> None:
    model, task = tiny_seq2seq.frozen("t5-odd"), Seq2Seq(num_beams=2, max_new_tokens=4)
    result = fit(model, recipe(method, length=3), task, EXAMPLES, EXAMPLES[:2], PLAN, out=tmp_path / "out")
    assert set(result.scores) == {"loss", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf", "exact_match"}
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    reader = Reader.of(model, Adapter.load(tmp_path / "out"))
    assert isinstance(reader.task, Seq2Seq) and reader.task.num_beams == 2
    answers = reader.predict(EXAMPLES, batch_size=4)
    assert [answer.text for answer in answers] == [reader.predict([example])[0].text for example in EXAMPLES]


def test_parts_are_saved_and_read(tmp_path: Path) -> None:
    from dataclasses import replace

    model, spec = tiny_seq2seq.frozen("bart"), replace(recipe("p-tuning-v2", length=3), parts=("decoder", "cross"))
    fit(
        model,
        spec,
        Classify(("no", "yes")),
        [{"text": "a", "label": "no"}, {"text": "b", "label": "yes"}] * 3,
        [{"text": "a", "label": "no"}],
        PLAN,
        out=tmp_path / "out",
    )
    adapter = Adapter.load(tmp_path / "out")
    assert adapter.spec.parts == ("decoder", "cross") and adapter.flat.shape == (3, 4 * 2 * 32)
    with pytest.raises(AdapterError) as caught:
        export_peft(adapter, tmp_path / "peft")
    assert str(caught.value) == (
        "the adapter cannot be exported to PEFT, because PEFT's prompts of encoder–decoders have other positions and attention masks; "
        "use it with Foreword."
    )


def test_a_task_is_its_json() -> None:
    task = Seq2Seq("{soft}translate: {input}{answer}", 5, 0.6, 30, "Translate.")
    assert task_from_dict(task.to_dict()) == task


def test_columns_of_texts_go_to_the_task_of_the_model() -> None:
    assert kind_of(["input", "output"]) == kind_of(["input", "output"], "encoder") == "generate"
    assert kind_of(["input", "output"], "encoder-decoder") == "seq2seq" and kind_of(["text", "label"], "encoder-decoder") == "classify"


def test_models_of_one_stack_are_refused() -> None:
    with pytest.raises(ModelError) as caught:
        Seq2Seq().for_model(tiny.frozen("llama").info, None)
    assert str(caught.value) == (
        "task 'seq2seq' needs an encoder–decoder, but tiny-llama has one stack; use task 'generate', or a model such as T5 or BART."
    )


def test_dampening_is_refused() -> None:
    model = tiny_seq2seq.frozen("t5")
    with pytest.raises(UsageError) as caught:
        Seq2Seq(PLAIN).train_features(EXAMPLES[0], model.info, budget_for(None, model.info), 0.2)
    assert str(caught.value) == ("dampening is 0.2, but tiny-t5 is an encoder–decoder, which never predicts its source; leave it at 0.")


@pytest.mark.parametrize("name", ["num_beams", "max_new_tokens"])
def test_numbers_that_are_too_small(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        Seq2Seq(**{name: 0})  # type: ignore[arg-type]
    assert str(caught.value) == f"{name} is 0, but it must be at least 1."


def test_an_empty_output() -> None:
    with pytest.raises(DataError) as caught:
        Seq2Seq().answer({"input": "a", "output": " "}, tiny_seq2seq.frozen("t5").info)
    assert str(caught.value) == "an example has an empty 'output'; remove the row or fill it."


def test_scores_name_all_metrics() -> None:
    assert Seq2Seq().score([Prediction("a b")], ["a b"])["exact_match"].value == 1.0


def test_a_batch_of_rows_without_answers_predicts_nothing() -> None:
    model = tiny_seq2seq.frozen("t5")
    batch = collate([Seq2Seq(PLAIN).eval_row(EXAMPLES[0], model.info, budget_for(None, model.info), truncate=False)[0]])
    assert model.predicting(batch, None, batch.labels >= 0).shape == (0, 320)
