"""The decision guide as data: each rule has its conditions, its preference, its reason and its source. Earlier rules win.

A rule names kinds of recipe, best first: a site and whether a network makes the prompt ("kv/network", "kv/direct"), "lora", "qlora" or "full". Facts are named in `FACTS`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from foreword.advisor.workload import BATCH_SIZE

Fact = str | int | bool
Condition = tuple[str, str, Fact | tuple[str, ...]]

FACTS = {
    "task": "kind of task",
    "examples": "training examples",
    "tasks": "number of tasks that share one base model",
    "parameters": "parameters of the base model",
    "kind": "causal, encoder or encoder-decoder",
    "knowledge": "near: the base model knows what the task needs; far: it does not",
    "serving": "any; shared: many tasks in one batch; bare: no extra tokens or time compared with the base model",
}

_COMPARE: Mapping[str, Callable[..., bool]] = {
    "<": operator.lt,
    ">=": operator.ge,
    "is": operator.eq,
    "in": lambda fact, values: fact in values,
}

OWN_RUNS = "Foreword's own runs (LOG.md, 2026-11-22)"
OWN_RESULTS = "Foreword's own runs (docs/results.md, Tasks with a head)"
PEFT_TABLE = "PEFT's method comparison, GSM8K with Llama-3.2-3B"

DEEP = ("kv/network", "kv/direct")
SOFT = (*DEEP, "input/direct", "input/network")


@dataclass(frozen=True)
class Rule:
    """When all conditions hold, `prefer` these kinds for this reason, and failing them take `then`; `source` is a paper's arXiv id, or runs of our own."""

    name: str
    when: tuple[Condition, ...]
    prefer: tuple[str, ...]
    then: tuple[str, ...]
    reason: str
    source: str


@dataclass(frozen=True)
class Choice:
    """A setting `about` which thing; of a table the first entry counts whose conditions hold."""

    about: str
    when: tuple[Condition, ...]
    value: float
    reason: str
    source: str


def holds(conditions: tuple[Condition, ...], facts: Mapping[str, Fact]) -> bool:
    """Whether all conditions are true of these facts."""
    return all(_COMPARE[comparison](facts[fact], value) for fact, comparison, value in conditions)


RULES: tuple[Rule, ...] = (
    Rule(
        "bare",
        (("serving", "is", "bare"),),
        ("lora", "qlora", "full"),
        (),
        "LoRA can be merged into the weights, so a request costs the same as on the base model; every soft prompt needs extra attention or context",
        "arXiv:2106.09685",
    ),
    Rule(
        "far and plentiful",
        (("knowledge", "is", "far"), ("examples", ">=", 10_000), ("tasks", "<", 3)),
        ("full",),
        ("lora", "qlora"),
        "the model must learn new knowledge, which needs a change of its weights, and there are enough examples to train all of them",
        "arXiv:2310.19698",
    ),
    Rule(
        "far",
        (("knowledge", "is", "far"),),
        ("lora", "qlora", "full"),
        (),
        "a soft prompt selects among skills that the base model has; it cannot create new attention patterns. A model trained to sort in ascending order "
        "learned to sort in descending order with full fine-tuning (85 %), but not with a prefix (0 %)",
        "arXiv:2310.19698",
    ),
    Rule(
        "few examples",
        (("examples", "<", 500),),
        ("lora", "qlora"),
        DEEP,
        "with fewer than 500 examples soft prompts are weakest: prompt tuning is close to full fine-tuning with enough data and far behind it with little",
        "arXiv:2109.04332",
    ),
    Rule(
        "few examples, real text",
        (("examples", "<", 500),),
        DEEP,
        (),
        "prefixes initialised with keys and values of real words were better than fine-tuning in their paper's low-data tests, so compare them",
        "arXiv:2101.00190",
    ),
    Rule(
        "one or two tasks",
        (("tasks", "<", 3),),
        ("lora", "qlora"),
        ("full", *DEEP),
        "for one or two tasks the small size of soft prompts matters little, and LoRA has better scores: 47.8 %, against 41.6 % with a prefix and "
        "34.3 % with prompt tuning",
        PEFT_TABLE,
    ),
    Rule(
        "words or spans",
        (("task", "in", ("tag", "qa")),),
        ("kv/direct", "kv/network"),
        ("lora", "qlora"),
        "tagging and extractive question answering need keys and values in every layer: prompts at the input only fail on small frozen encoders "
        "(SQuAD 1.1, BERT-large: F1 8.5 at the input, 86.0 in every layer, 91.1 with full fine-tuning)",
        "arXiv:2110.07602",
    ),
    Rule(
        "probing",
        (("task", "is", "probe"),),
        ("input/network",),
        ("input/direct",),
        "soft tokens between the words of a template, produced by a small network, were designed for knowledge probing",
        "arXiv:2103.10385",
    ),
    Rule(
        "writing",
        (("task", "in", ("generate", "seq2seq")),),
        DEEP,
        ("lora", "qlora"),
        "for generation, keys and values in every layer are much better than embeddings only: BLEU 69.7, against at most 62.2 (E2E, GPT-2 medium)",
        "arXiv:2101.00190",
    ),
    Rule(
        "ten billion",
        (("parameters", ">=", 10_000_000_000),),
        ("input/direct",),
        DEEP,
        "from about ten billion parameters on, prompt tuning matches full fine-tuning, and its adapters are the smallest",
        "arXiv:2104.08691",
    ),
    Rule(
        "encoder",
        (("kind", "is", "encoder"),),
        ("kv/direct", "kv/network"),
        ("lora",),
        "on encoders with a head, prompts in every layer are close to full fine-tuning; prompts at the input only are not",
        "arXiv:2110.07602",
    ),
    Rule(
        "default",
        (),
        ("kv/network",),
        ("kv/direct", "input/direct", "lora", "qlora", "input/network", "full"),
        "prefix tuning had the highest accuracy on sentiment with Gemma-3-270M: 0.868 ± 0.017, against 0.860 ± 0.017 without an MLP and 0.848 ± 0.018 "
        "at the input; one seed, and the differences are within the standard errors",
        OWN_RUNS,
    ),
    Rule(
        "many tasks",
        (("tasks", ">=", 3),),
        SOFT,
        (),
        "one frozen copy of the model serves all tasks, and each task adds only a small file",
        "arXiv:2104.08691",
    ),
    Rule(
        "shared",
        (("serving", "is", "shared"),),
        SOFT,
        (),
        "rows with different soft prompts run in one batch without switching adapters; LoRA needs an engine that computes several adapters in one batch",
        "arXiv:2104.08691",
    ),
)

LENGTHS: tuple[Choice, ...] = (
    Choice(
        "length", (("task", "is", "qa"),), 16, "the released scripts for SQuAD use 8 and 16 virtual tokens", "arXiv:2110.07602, its code"
    ),
    Choice(
        "length",
        (("task", "is", "tag"),),
        5,
        "5 and 20 virtual tokens reach the same accuracy (0.778 ± 0.006 and 0.777 ± 0.005 on MiniLM, 0.870 ± 0.007 and 0.873 ± 0.007 on Gemma-3-270M); 1 and 2 are worse on "
        "both (0.737 ± 0.007 and 0.763 ± 0.006; 0.835 ± 0.009 and 0.864 ± 0.007)",
        OWN_RESULTS,
    ),
    Choice(
        "length",
        (("task", "in", ("generate", "seq2seq")),),
        20,
        "the paper uses 5 to 10 for table to text and 100 to 200 for summaries, so compare a greater length if outputs are long",
        "arXiv:2101.00190",
    ),
    Choice("length", (), 20, "more than 20 virtual tokens improve little", "arXiv:2104.08691"),
)

# As `TrainPlan` has them.
WARMUP, STEPS = 0.06, 300
PASSES, MOST_STEPS = 2, 3000
SCHEDULE = Choice(
    "warmup",
    (),
    WARMUP,
    "the learning rate rises during the first 6 % of the steps, then follows a cosine to zero; training stops early when validation no longer improves",
    "Foreword's default",
)
CHECKPOINTING = Choice(
    "gradient_checkpointing",
    (),
    True,
    "uses less memory and about a third more time: layers are computed again in the backward pass",
    "arXiv:1604.06174",
)
STEPS_REASON = f"{PASSES} passes over the examples, at least {STEPS} steps and at most {MOST_STEPS:,}"


def steps_for(examples: int) -> Choice:
    """Steps of a run: a few passes, within bounds."""
    passes = -(-PASSES * examples // BATCH_SIZE)
    return Choice("steps", (), max(STEPS, min(MOST_STEPS, passes)), STEPS_REASON, "Foreword's default; not a measured optimum")


def first(table: tuple[Choice, ...], facts: Mapping[str, Fact]) -> Choice:
    """The entry of a table that counts."""
    return next(choice for choice in table if holds(choice.when, facts))


def as_markdown() -> str:
    """The rules as the table of docs/advise.md."""
    rows = [f"| {_in_words(rule.when)} | {', '.join(rule.prefer)} | {rule.reason} | {rule.source} |" for rule in RULES]
    return "\n".join(["| when | method | reason | source |", "|---|---|---|---|", *rows])


def _in_words(conditions: tuple[Condition, ...]) -> str:
    words = []
    for fact, comparison, value in conditions:
        shown = " or ".join(value) if isinstance(value, tuple) else value if isinstance(value, str) else f"{value:,}"
        words.append(f"{fact} {'is' if comparison == 'in' else comparison} {shown}")
    return " and ".join(words) or "always"
