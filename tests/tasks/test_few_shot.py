"""Written prompts: the template without soft tokens, and training examples before the text, as many as fit."""

from __future__ import annotations

from typing import Any

import pytest
import tiny

from foreword.errors import DataError, UsageError
from foreword.tasks.base import LengthBudget
from foreword.tasks.classify import Classify
from foreword.tasks.evaluation_loop import evaluate
from foreword.tasks.few_shot import FewShot, choose, written
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify
from foreword.tasks.seq2seq import Seq2Seq

ROWS = [{"text": f"a film {i}", "label": "good" if i % 3 else "bad"} for i in range(12)]
SHOTS = [{"text": "a joy", "label": "good"}, {"text": "dull {it} is <eos>", "label": "bad"}]
WIDE = LengthBudget(0, 128)


def read(few: FewShot, text: str, length_budget: LengthBudget = WIDE, **model: Any) -> tuple[str, int]:
    """What the model reads, and how many examples of it."""
    frozen = tiny.build("llama", **model)
    eval_feature, cut, count = few.eval_feature({"text": text}, frozen.info, length_budget)
    assert not cut
    return frozen.tokenizer.inner.decode(eval_feature.rows[0].ids), count


def test_examples_stand_before_the_text_as_the_text_does() -> None:
    few = FewShot.of(Classify(("bad", "good")), SHOTS)
    assert read(few, "a mess") == ("<bos>a joy\nLabel: good\n\ndull {it} is <eos>\nLabel: bad\n\na mess\nLabel:", 2)


def test_a_description_stands_once_before_all_and_label_words_answer() -> None:
    few = FewShot.of(Classify(("bad", "good"), words=("no", "yes"), description="Is it {good}?"), SHOTS[:1])
    assert read(few, "a mess")[0] == "<bos>Is it {good}?\n\na joy\nLabel: yes\n\na mess\nLabel:"


def test_nothing_in_an_example_becomes_a_special_token() -> None:
    frozen = tiny.frozen("llama")
    eval_feature, _, _ = FewShot.of(Classify(("bad", "good")), SHOTS).eval_feature({"text": "a <bos>"}, frozen.info, WIDE)
    assert eval_feature.rows[0].ids.count(tiny.EOS) == 0
    assert eval_feature.rows[0].ids.count(tiny.BOS) == 1


def test_a_written_template_replaces_the_task_s_own() -> None:
    task = Classify(("bad", "good"), description="unread")
    assert written(task, "Review: {text} = {answer}").template.source == "Review: {text} = {answer}"
    assert read(FewShot.of(task, SHOTS[:1], words="Review: {text} = {answer}"), "x")[0] == "<bos>Review: a joy = good\n\nReview: x ="


def test_in_a_chat_the_examples_stand_inside_the_message() -> None:
    few = FewShot.of(Classify(("bad", "good")), SHOTS[:1], chat=tiny.build("llama", chat=True).tokenizer.chat)
    assert read(few, "x", chat=True)[0] == "<bos><user>a joy\nLabel: good\n\nx\nLabel:<eos>\n<model>"


def test_examples_that_do_not_fit_beside_a_text_are_left_out() -> None:
    few = FewShot.of(Classify(("bad", "good")), SHOTS * 3)
    assert read(few, "x", max_position_embeddings=128)[1] == 6
    assert read(few, "x", LengthBudget(0, 64), max_position_embeddings=64)[1] == 3
    assert read(few, "x " * 24, LengthBudget(0, 64), max_position_embeddings=64)[1] == 0


def test_a_text_that_is_too_long_by_itself_is_cut_and_has_none() -> None:
    model = tiny.frozen("llama")
    eval_feature, cut, count = FewShot.of(Classify(("bad", "good")), SHOTS).eval_feature(
        {"text": "a joy " * 30}, model.info, LengthBudget(0, 20), max_answer_tokens=2
    )
    assert (cut, count, eval_feature.num_tokens) == (True, 0, 18)


def test_an_exam_asks_answers_and_counts_what_had_no_room() -> None:
    model = tiny.build("llama", max_position_embeddings=64)
    few = FewShot.of(Classify(("bad", "good")), SHOTS)
    eval_set, fewer = few.eval_set(model.info, LengthBudget(0, 64), [ROWS[0], {"text": "x " * 25, "label": "good"}])
    assert (eval_set.targets, eval_set.cut, fewer, len(eval_set.train_features)) == (["bad", "good"], 0, 1, 2)
    scores = evaluate(few.tasks[0], model, _nothing(), eval_set, batch_size=2)
    assert scores["accuracy"].n == 2


def test_generation_reads_examples_too() -> None:
    few = FewShot.of(Generate(max_new_tokens=4), [{"input": "a", "output": "b c"}])
    eval_feature, _, count = few.eval_feature({"input": "x"}, tiny.frozen("llama").info, WIDE)
    assert count == 1
    assert tiny.frozen("llama").tokenizer.inner.decode(eval_feature.rows[0].ids) == "<bos>a\nOutput: b c\n\nx\nOutput:"


def test_a_prior_is_measured_behind_the_examples() -> None:
    model, plain = tiny.frozen("llama"), FewShot.of(Classify(("bad", "good")), SHOTS)
    found = plain.calibrated(model, WIDE)
    rows = [plain.eval_feature({"text": text}, model.info, WIDE)[0].rows[0] for text in ("", "N/A", "[MASK]")]
    first = plain.tasks[0]
    assert isinstance(first, Classify)
    expected = first.scores(model, None, rows).softmax(1).mean(0).log().tolist()
    assert [task.to_dict()["prior"] for task in found.tasks] == [pytest.approx(expected)] * 3


def test_a_column_may_be_called_like_an_example() -> None:
    task = Classify(("bad", "good"), template="{shot1_text} {answer}")
    few = FewShot.of(task, [{"shot1_text": "one", "label": "bad"}])
    eval_feature, _, _ = few.eval_feature({"shot1_text": "two"}, tiny.frozen("llama").info, WIDE)
    assert tiny.frozen("llama").tokenizer.inner.decode(eval_feature.rows[0].ids) == "<bos>one bad\n\ntwo"


def test_examples_are_chosen_by_the_seed_and_balanced_over_labels() -> None:
    task = Classify(("bad", "good"))
    chosen = choose(task, ROWS, 6, seed=1)
    for k in (2, 4, 6):
        assert [row["label"] for row in chosen[:k]].count("bad") == k // 2
    assert chosen == choose(task, ROWS, 6, seed=1)
    assert chosen != choose(task, ROWS, 6, seed=2)
    assert len({row["text"] for row in choose(task, ROWS, 12, seed=0)}) == 12, "when a label has no more, the others go on"
    pairs = [{"input": str(i), "output": str(i)} for i in range(5)]
    assert len({row["input"] for row in choose(Generate(), pairs, 3, seed=0)}) == 3


def test_what_cannot_be_written() -> None:
    with pytest.raises(DataError) as few:
        choose(Classify(("bad", "good")), ROWS[:3], 4, seed=0)
    assert str(few.value) == "4 examples were asked for in the prompt, but there are only 3; ask for fewer, or add examples."
    with pytest.raises(UsageError) as head:
        written(HeadClassify(("bad", "good")))
    assert str(head.value) == (
        "a 'classify-head' task has a head, which must be trained; a written prompt can classify by label words, or generate."
    )
    with pytest.raises(UsageError) as soft:
        written(Classify(("bad", "good")), "{soft}{text} {answer}")
    assert (
        str(soft.value)
        == "the written prompt '{soft}{text} {answer}' has soft tokens, which only a trained prompt has; use words and fields only."
    )
    with pytest.raises(UsageError) as other:
        FewShot.of(Seq2Seq(), [])
    assert str(other.value) == "a 'seq2seq' task takes no examples in its prompt; leave few-shot out."


def _nothing() -> Any:
    from foreword.backbone.adapter_state import AdapterState

    return AdapterState()
