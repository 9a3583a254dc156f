"""`echo`: a text's own log-probabilities, and what lm-evaluation-harness makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from server.given import BASE, Served, ask, model, reader

from foreword.backbone.batch import collate
from foreword.serving.request import PromptLogprobs, Request
from foreword.tasks.template_task import TemplateTask

PAIRS = [("a film", " about"), ("one two three", " four five"), ("a joy", " to watch and so on")]


def scores(name: str, request: Request) -> PromptLogprobs:
    """Log-probabilities of a request's tokens, computed directly."""
    frozen = model()
    if name == BASE:
        row_ids = request.ids or (*frozen.tokenizer.opening, *frozen.tokenizer.encode(request.example["text"]))
        logits = frozen.network(torch.tensor([row_ids])).logits[0]
    else:
        found = reader(name)
        assert isinstance(found.task, TemplateTask)
        row, _ = found.task.eval_row(request.example, frozen.info, found.length_budget, truncate=False)
        row_ids = row.ids
        logits = frozen.forward(collate([row], pad=frozen.tokenizer.pad), found.adapter_state.tokens)[0]
    logs = logits.log_softmax(-1)
    values = [None, *(float(logs[place, token]) for place, token in enumerate(row_ids[1:]))]
    tops = [{}, *({int(logs[place].argmax()): float(logs[place].max())} for place in range(len(row_ids) - 1))]
    return PromptLogprobs(tuple(row_ids), tuple(values), tuple(tops))


def expected(name: str, context: str, more: str) -> tuple[float, bool]:
    """The log-likelihood of a text behind another, where a task reads both, and whether greedy decoding would write it."""
    encode = model().tokenizer.encode
    size, ids = len(encode(context)), encode(context + more)
    column = "text" if name == BASE else reader(name).task.columns[0]
    found = scores(name, Request("x", None if name == BASE else name, {column: context + more}))
    start = next(place for place in range(len(found.tokens)) if found.tokens[place : place + len(ids)] == tuple(ids))
    places = range(start + size, start + len(ids))
    greedy = all(found.tokens[place] in found.top[place] for place in places)
    return sum(found.logprobs[place] or 0.0 for place in places), greedy


@pytest.mark.parametrize("tokenized", [True, False])
@pytest.mark.parametrize("name", [BASE, "writer", "long"])
def test_the_harness_scores_a_served_model(served: Served, tmp_path: Path, name: str, tokenized: bool) -> None:
    tokenizer = tmp_path / "tokenizer"
    model().tokenizer.inner.save_pretrained(tokenizer)
    harness = LocalCompletionsAPI(
        base_url=f"{served.url}/v1/completions",
        model=name,
        tokenizer=str(tokenizer),
        tokenizer_backend="huggingface",
        tokenized_requests=tokenized,
        add_bos_token=tokenized and name == BASE,
        max_length=128,
    )
    asked = [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index) for index, pair in enumerate(PAIRS)]
    for (logprob, greedy), pair in zip(harness.loglikelihood(asked, disable_tqdm=True), PAIRS, strict=True):
        wanted = expected(name, *pair)
        assert (logprob, greedy) == (pytest.approx(wanted[0], abs=1e-4), wanted[1])


def test_an_echo_is_the_prompt_and_its_tokens(served: Served) -> None:
    ids = model().tokenizer.encode("a film")
    for name in (BASE, "writer"):
        body = {"model": name, "prompt": "a film", "echo": True, "max_tokens": 0, "logprobs": 2}
        found = ask(served.url, "/v1/completions", body).json["choices"][0]
        assert found["text"] == "a film" and "".join(found["logprobs"]["tokens"]) == "a film"
        assert len(found["logprobs"]["token_logprobs"]) == len(ids) and found["logprobs"]["text_offset"][:2] == [0, 1]
        assert all(
            top and min(top.values()) <= value
            for top, value in zip(found["logprobs"]["top_logprobs"], found["logprobs"]["token_logprobs"], strict=True)
        )
        whole = ask(served.url, "/v1/completions", {**body, "max_tokens": 1}).json["choices"][0]
        assert whole["text"].startswith("a film") and len(whole["logprobs"]["token_logprobs"]) == len(ids) + 1
        assert whole["logprobs"]["token_logprobs"][: len(ids)] == pytest.approx(found["logprobs"]["token_logprobs"], abs=1e-4)
    first = ask(
        served.url,
        "/v1/completions",
        {"model": BASE, "prompt": [*model().tokenizer.opening, *ids], "echo": True, "max_tokens": 0, "logprobs": 0},
    )
    assert first.json["choices"][0]["logprobs"]["token_logprobs"][0] is first.json["choices"][0]["logprobs"]["top_logprobs"][0] is None


def test_an_echo_needs_no_logprobs(served: Served) -> None:
    plain = ask(served.url, "/v1/completions", {"model": "writer", "prompt": "a film"}).json["choices"][0]["text"]
    for prompt in ("a film", model().tokenizer.encode("a film"), [*model().tokenizer.opening, *model().tokenizer.encode("a film")]):
        found = ask(served.url, "/v1/completions", {"model": "writer", "prompt": prompt, "echo": True})
        assert found.json["choices"][0]["text"].endswith("a film" + plain)
    columns = ask(served.url, "/v1/completions", {"model": "writer", "prompt": {"input": "x"}, "echo": True})
    assert columns.message == "`echo` repeats a text or token ids, but an object with columns came; leave out echo."
    assert (
        ask(served.url, "/v1/completions", {"model": "writer", "prompt": "x", "max_tokens": 0}).message
        == "max_tokens is 0, but it must be at least 1."
    )
