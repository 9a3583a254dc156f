"""OpenAI's client works unchanged, and every answer is the one `predict` gives."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai import OpenAI
from server.given import BASE, HEADED, WRITERS, model, predicted

TEXTS = ["a film", "x", "one two three four five six seven", "a long story about nothing at all", "ä\U0001f600"]


def test_models_are_the_base_and_all_tasks(client: OpenAI) -> None:
    found = {card.id: card for card in client.models.list()}
    assert set(found) == {BASE, *WRITERS, *HEADED}
    card = found["writer"].to_dict()
    assert card["parent"] == BASE and str(card["root"]).endswith("/writer") and card["max_model_len"] == model().shape.positions
    assert found[BASE].to_dict()["parent"] is None
    assert client.models.retrieve("writer").id == "writer"


@pytest.mark.parametrize("name", ["writer", "suffix", "sentiment"])
def test_a_completion_is_what_predict_says(client: OpenAI, name: str) -> None:
    for text in TEXTS:
        found = client.completions.create(model=name, prompt=text)
        assert found.choices[0].text == predicted(name, text).text and found.usage is not None and found.usage.prompt_tokens > 0
    several = client.completions.create(model=name, prompt=TEXTS)
    assert [choice.text for choice in several.choices] == [predicted(name, text).text for text in TEXTS]


def test_streams_join_to_the_whole_answer(client: OpenAI) -> None:
    for text in TEXTS:
        pieces = list(client.completions.create(model="writer", prompt=text, stream=True, stream_options={"include_usage": True}))
        assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == predicted("writer", text).text
        assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] in ("stop", "length")
        assert pieces[-1].choices == [] and pieces[-1].usage is not None and pieces[-1].usage.completion_tokens > 0


def test_a_chat_with_a_task_reads_the_message(client: OpenAI) -> None:
    found = client.chat.completions.create(model="writer", messages=[{"role": "user", "content": "a film"}])
    assert found.choices[0].message.content == predicted("writer", "a film").text
    stream = client.chat.completions.create(model="writer", messages=[{"role": "user", "content": "a film"}], stream=True)
    pieces = list(stream)
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == predicted("writer", "a film").text


def test_a_label_can_be_asked_for_as_a_completion(client: OpenAI) -> None:
    found = client.completions.create(model="sentiment", prompt="a film")
    assert found.choices[0].to_dict()["scores"] == pytest.approx(predicted("sentiment", "a film").scores, abs=1e-5)
    assert "".join(p.choices[0].text for p in client.completions.create(model="sentiment", prompt="x", stream=True)) in ("good", "bad")


def test_a_task_with_several_columns_takes_an_object(client: OpenAI) -> None:
    example = {"question": "what", "context": "a film"}
    found = client.completions.create(model="pairs", prompt=example)  # type: ignore[call-overload]
    assert found.choices[0].text == predicted("pairs", example).text


def test_the_base_model_goes_on_from_a_text(client: OpenAI) -> None:
    whole = client.completions.create(model=BASE, prompt="a film", max_tokens=8)
    inner = model().tokenizer.inner
    ids = client.completions.create(model=BASE, prompt=inner("a film")["input_ids"], max_tokens=8)
    assert whole.choices[0].text == ids.choices[0].text == greedy(inner("a film")["input_ids"], 8)


def test_the_base_model_reads_a_conversation_in_its_chat_format(client: OpenAI) -> None:
    messages = [
        {"role": "system", "content": "Be <eos> brief."},
        {"role": "user", "content": "a film"},
        {"role": "assistant", "content": "yes {x}"},
        {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "now"}]},
    ]
    plain = [{**message, "content": message["content"] if isinstance(message["content"], str) else "and now"} for message in messages]
    found = client.chat.completions.create(model=BASE, messages=messages, max_completion_tokens=8)  # type: ignore[arg-type]
    harmless = [{**message, "content": message["content"].replace("<eos>", "")} for message in plain]
    assert found.usage is not None and found.usage.prompt_tokens > len(model().tokenizer.inner.apply_chat_template(harmless)["input_ids"])
    again = client.chat.completions.create(model=BASE, messages=harmless, max_tokens=8)  # type: ignore[arg-type]
    ids = model().tokenizer.inner.apply_chat_template(harmless, add_generation_prompt=True)["input_ids"]
    assert again.choices[0].message.content == greedy(ids, 8)


def test_n_answers_are_drawn_and_a_seed_repeats_them(client: OpenAI) -> None:
    ask = {"model": "writer", "prompt": ["a film", "x"], "n": 3, "temperature": 1.5, "seed": 7, "stop": ["zz", "!"]}
    first, second = client.completions.create(**ask), client.completions.create(**ask)  # type: ignore[call-overload]
    assert [choice.text for choice in first.choices] == [choice.text for choice in second.choices]
    assert len({choice.text for choice in first.choices[:3]}) > 1 and [choice.index for choice in first.choices] == list(range(6))
    alone = client.completions.create(model="writer", prompt="a film")
    assert first.usage and alone.usage and first.usage.prompt_tokens < 3 * alone.usage.prompt_tokens * 2


def test_logprobs_in_both_shapes(client: OpenAI) -> None:
    found = client.completions.create(model="writer", prompt="a film", logprobs=2, logit_bias={"40": 50}).choices[0]
    assert found.logprobs and found.logprobs.tokens and found.logprobs.top_logprobs and found.logprobs.token_logprobs
    assert all(len(top) >= 1 for top in found.logprobs.top_logprobs) and all(value <= 0 for value in found.logprobs.token_logprobs if value)
    chat = client.chat.completions.create(model="writer", messages=[{"role": "user", "content": "x"}], logprobs=True, top_logprobs=3)
    assert chat.choices[0].logprobs and chat.choices[0].logprobs.content
    assert all(len(token.top_logprobs) == 3 for token in chat.choices[0].logprobs.content)


def test_an_answer_follows_a_json_schema(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "film", "schema": schema, "strict": True}}
    for name in ("writer", BASE):
        found = client.completions.create(model=name, prompt="a film", max_tokens=40, extra_body={"response_format": wanted})
        assert json.loads(found.choices[0].text) in ({"good": True}, {"good": False})
    chat = client.chat.completions.create(
        model="writer",
        messages=[{"role": "user", "content": "x"}],
        response_format=wanted,  # type: ignore[arg-type]
        max_tokens=40,
    )
    assert set(json.loads(chat.choices[0].message.content or "")) == {"good"}
    with pytest.raises(openai.BadRequestError) as caught:
        bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
        client.completions.create(model="writer", prompt="x", extra_body={"response_format": bad})
    assert "json_schema cannot be followed" in caught.value.body["message"]  # type: ignore[index]


def test_many_at_once_of_mixed_tasks(client: OpenAI) -> None:
    asked = [(name, text) for text in TEXTS for name in ("writer", "suffix", "sentiment")] * 2
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda ask: client.completions.create(model=ask[0], prompt=ask[1]).choices[0].text, asked))
    assert found == [predicted(name, text).text for name, text in asked]


def test_errors_are_openais(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="nobody", prompt="x")
    assert caught.value.body == {
        "message": "The model `nobody` does not exist; GET /v1/models lists those that do.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model="writer", prompt="x", temperature=-1)
    assert wrong.value.body["message"] == "temperature is -1.0, but it must be from 0 (greedy) to 10."  # type: ignore[index]


def greedy(ids: list[int], count: int) -> str:
    """The model's own greedy text."""
    import torch

    given = torch.tensor([ids])
    out = model().network.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False, use_cache=True)
    return model().tokenizer.decode(out[0, len(ids) :].tolist())
