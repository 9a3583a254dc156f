"""The table of task kinds: each row has all that code outside a task's own file needs. A new task is a class and a row here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foreword.shape import Kind

Answers = Literal["label words", "head", "text"]
BATCH = "/v1/batch"  # the endpoint of every task
# How a task that reads one text reads a conversation; the first is the default.
CONVERSATIONS = ("last-user", "system-in-front", "whole")


@dataclass(frozen=True)
class PeftHead:
    """A task with a head in PEFT: its `task_type`, the usage of its model, and why causal models are not supported, if so."""

    task_type: str
    usage: str
    not_causal: str = ""


@dataclass(frozen=True)
class TaskKind:
    """One kind of task.

    Args:
        name: What users call it; adapters record it.
        task: Its class as "module:Class", imported when it is first needed.
        columns: Columns of a training example, as long as no template names others.
        target: The column that holds the right answer.
        answers: Whether label words are scored, a head is trained, or text is written.
        guessed: Whether its columns alone tell it apart; other kinds are asked for by name.
        with_head: The kind that does the same by a head: on encoders, for two texts, and where a head alone is trained.
        on_encoder_decoder: The kind that does the same on an encoder-decoder.
        options: Options of the command line that are for it, beside --description; each but "chat" is an argument of the class, too.
        made_from: What it can be made from: labels or options alone, or only examples. PEFT's folders have no examples.
        head_outputs: Outputs of its head, a number or one for each label; 0 without a head.
        biased_on_causal: Whether its head has a bias on causal models, too.
        endpoint: Where a server answers it by itself; `/v1/batch` answers every kind.
        streams: Whether its text is drawn token by token, so that it can be streamed and sampled.
        per_word: Whether it has an answer for each word of its input.
        peft: How PEFT has it, where PEFT has it.
    """

    name: str
    task: str
    columns: tuple[str, ...]
    target: str
    answers: Answers = "head"
    guessed: bool = False
    with_head: str | None = None
    on_encoder_decoder: str | None = None
    options: tuple[str, ...] = ()
    made_from: Literal["examples", "labels", "options"] = "examples"
    head_outputs: int | Literal["labels"] = 0
    biased_on_causal: bool = False
    endpoint: str = BATCH
    streams: bool = False
    per_word: bool = False
    peft: PeftHead | None = None

    @property
    def has_template(self) -> bool:
        """Whether a template says how an example reads."""
        return "template" in self.options


_TEMPLATE = ("template", "chat")
_SEQ_CLS = "Give it the text, without any token behind it"
_CLASSIFY, _COMPLETIONS = "/v1/classify", "/v1/completions"

# In the order of inference, if an example has the columns of several kinds.
_ROWS = (
    TaskKind(
        "classify",
        "foreword.tasks.classify:Classify",
        ("text", "label"),
        "label",
        answers="label words",
        guessed=True,
        with_head="classify-head",
        options=(*_TEMPLATE, "words", "conversation"),
        made_from="labels",
        endpoint=_CLASSIFY,
    ),
    TaskKind(
        "classify-head",
        "foreword.tasks.head_classify:HeadClassify",
        ("text", "label"),
        "label",
        options=("pooling", "conversation"),
        head_outputs="labels",
        endpoint=_CLASSIFY,
        peft=PeftHead("SEQ_CLS", _SEQ_CLS),
    ),
    TaskKind(
        "multi-label",
        "foreword.tasks.multilabel:MultiLabel",
        ("text", "label"),
        "label",
        options=("pooling", "conversation"),
        head_outputs="labels",
        endpoint=_CLASSIFY,
        peft=PeftHead("SEQ_CLS", f"{_SEQ_CLS}; a label holds where its logit is above 0"),
    ),
    TaskKind(
        "regress",
        "foreword.tasks.regress:Regress",
        ("text", "label"),
        "label",
        options=("pooling", "conversation"),
        head_outputs=1,
        endpoint=_CLASSIFY,  # PEFT adds no number: its model would lack `center` and `spread`
    ),
    TaskKind(
        "generate",
        "foreword.tasks.generate:Generate",
        ("input", "output"),
        "output",
        answers="text",
        guessed=True,
        on_encoder_decoder="seq2seq",
        options=(*_TEMPLATE, "max_new_tokens", "conversation"),
        made_from="options",
        endpoint=_COMPLETIONS,
        streams=True,
    ),
    TaskKind(
        "seq2seq",
        "foreword.tasks.seq2seq:Seq2Seq",
        ("input", "output"),
        "output",
        answers="text",
        options=(*_TEMPLATE, "max_new_tokens", "conversation"),
        made_from="options",
        endpoint=_COMPLETIONS,
    ),
    TaskKind(
        "tag",
        "foreword.tasks.tag:Tag",
        ("tokens", "tags"),
        "tags",
        guessed=True,
        head_outputs="labels",
        biased_on_causal=True,
        endpoint="/v1/tag",
        per_word=True,
        peft=PeftHead("TOKEN_CLS", "Give it the words joined by single spaces; the tag of a word stands at its {piece} token"),
    ),
    TaskKind(
        "qa",
        "foreword.tasks.qa:QA",
        ("question", "context", "answers"),
        "answers",
        guessed=True,
        head_outputs=2,
        biased_on_causal=True,
        endpoint="/v1/qa",
        peft=PeftHead(
            "QUESTION_ANS",
            "Give the question and the context as a pair to its `base_model`, because the forward of PeftModelForQuestionAnswering drops "
            "token_type_ids",
            not_causal="a causal model reads words behind the context here, and transformers' reads none",
        ),
    ),
    TaskKind(
        "choice",
        "foreword.tasks.choice:Choice",
        ("question", "choices", "label"),
        "label",
        guessed=True,
        options=("pooling",),
        head_outputs=1,
        biased_on_causal=True,
        endpoint=_CLASSIFY,  # PEFT compares no texts
    ),
    TaskKind(
        "probe",
        "foreword.tasks.knowledge_probe:Probe",
        ("subject", "answer"),
        "answer",
        answers="label words",
        guessed=True,
        options=_TEMPLATE,
        endpoint=_CLASSIFY,
    ),
)

TASK_KINDS: dict[str, TaskKind] = {kind.name: kind for kind in _ROWS}

# The base model on a server, without a task; no adapter is of this kind.
BASE_MODEL = TaskKind("text", "", ("text",), "output", answers="text", endpoint=_COMPLETIONS, streams=True)


def find_kind(name: str) -> TaskKind:
    """The row of a kind, also of the base model's "text"; a plain row for the kind of another version."""
    if name == BASE_MODEL.name:
        return BASE_MODEL
    return TASK_KINDS.get(name) or TaskKind(name, "", ("text", "label"), "label")


def kind_on(name: str, model: Kind) -> TaskKind:
    """The kind that replaces a task's kind on a kind of base model."""
    kind = TASK_KINDS[name]
    other = {"causal": None, "encoder": kind.with_head, "encoder-decoder": kind.on_encoder_decoder}[model]
    return kind if other is None else TASK_KINDS[other]


def as_markdown() -> str:
    """The kinds as the table of docs/tasks/kinds.md."""
    rows = [
        f"| `{kind.name}` | {', '.join(kind.columns)} | {'yes' if kind.guessed else 'no'} | {kind.answers} | {_option_names(kind)} | `{kind.endpoint}` "
        f"| {kind.peft.task_type if kind.peft else '–'} |"
        for kind in TASK_KINDS.values()
    ]
    head = "| `--task` | columns | known by them | answers by | options | endpoint | PEFT's task type of a head |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def _option_names(kind: TaskKind) -> str:
    return ", ".join(f"`--{name.replace('_', '-')}`" for name in kind.options) or "–"
