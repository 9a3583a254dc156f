"""The demo's three tasks: real texts, a written prompt to beat, and how each soft prompt is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foreword.demo.corpora import Split, bbc_headline, bbc_topic, rotten_tomatoes
from foreword.prompts.template import Template
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.template_task import TemplateTask
from foreword.training.plan import TrainPlan

TOPICS = ("business", "entertainment", "politics", "sport", "tech")


@dataclass(frozen=True)
class DemoTask:
    """One task: its data, the written prompt (the best of four or five tried on validation texts, see LOG.md), the plan and the metric shown."""

    name: str
    what: str
    split: Callable[[], Split]
    task: TemplateTask
    written: str
    plan: TrainPlan
    metric: str

    def baseline(self) -> TemplateTask:
        """The same task read through the written prompt."""
        return self.task.with_template(Template.parse(self.written))


TASKS = (
    DemoTask(
        name="sentiment",
        what="Rotten Tomatoes sentence → negative or positive",
        split=lambda: rotten_tomatoes(train=4000, valid=100, test=400),
        task=Classify(
            ("negative", "positive"),
            template=Template.parse("{soft}{text}\nSentiment: {answer}"),
            description="Is this review of a film negative or positive?",
        ),
        written="{text}\nSentiment: {answer}",
        plan=TrainPlan(steps=160, batch_size=16, learning_rate=0.0035, eval_every=80, eval_examples=100),
        metric="accuracy",
    ),
    DemoTask(
        name="topic",
        what="BBC article → one of five topics",
        split=lambda: bbc_topic(train=1000, valid=60, test=300),
        task=Classify(
            TOPICS,
            template=Template.parse("{soft}{text}\n\nCategory: {answer}"),
            description="Is this news article about business, entertainment, politics, sport or tech?",
        ),
        written="BBC News | {text}\n\nCategory: {answer}",
        plan=TrainPlan(steps=96, batch_size=12, learning_rate=0.015, eval_every=48, eval_examples=60, max_length=64),
        metric="accuracy",
    ),
    DemoTask(
        name="headline",
        what="BBC article → its headline",
        split=lambda: bbc_headline(train=1000, valid=24, test=48),
        task=Generate(
            template=Template.parse("{soft}{input}\n\nHeadline: {answer}"),
            max_new_tokens=16,
            description="Write the headline of this news article in a few words.",
        ),
        written="Article: {input}\n\nHeadline: {answer}",
        plan=TrainPlan(steps=56, batch_size=6, eval_every=28, eval_examples=24, max_length=128),
        metric="rouge_l",
    ),
)
