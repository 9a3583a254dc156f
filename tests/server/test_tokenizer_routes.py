"""/tokenize, /detokenize and /version are those of vLLM's clients."""

from __future__ import annotations

from server.given import BASE, Served, ask, model


def test_a_text_becomes_tokens_and_a_text_again(served: Served) -> None:
    tokenizer = model().tokenizer
    for name in (BASE, "writer"):
        found = ask(served.url, "/tokenize", {"model": name, "prompt": "a film <eos>", "return_token_strs": True}).json
        assert found["tokens"] == [*tokenizer.opening, *tokenizer.encode("a film <eos>")] and tokenizer.eos not in found["tokens"]
        assert found["count"] == len(found["tokens"]) == len(found["token_strs"]) and found["max_model_len"] == model().shape.positions
        plain = ask(served.url, "/tokenize", {"model": name, "prompt": "a film", "add_special_tokens": False}).json["tokens"]
        assert plain == tokenizer.encode("a film")
        assert ask(served.url, "/detokenize", {"model": name, "tokens": plain}).json == {"prompt": "a film"}


def test_messages_become_tokens_of_the_chat_format(served: Served) -> None:
    messages = [{"role": "user", "content": "a film"}]
    found = ask(served.url, "/tokenize", {"model": BASE, "messages": messages}).json["tokens"]
    inner = model().tokenizer.inner
    assert found == inner.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    begun = [*messages, {"role": "assistant", "content": "yes"}]
    more = ask(served.url, "/tokenize", {"model": BASE, "messages": begun, "continue_final_message": True}).json["tokens"]
    assert inner.decode(more) == "<bos><user>a film<eos>\n<user>yes"  # this format writes <user> before every message


def test_mistakes_are_one_sentence(served: Served) -> None:
    for path, body, sentence in (
        ("/tokenize", {"model": "nobody", "prompt": "x"}, "The model `nobody` does not exist; GET /v1/models lists those that do."),
        ("/detokenize", {"model": BASE, "tokens": [1, 320]}, "`tokens` has ids that are not from 0 to 319; correct them."),
    ):
        assert ask(served.url, path, body).message == sentence
    both = ask(served.url, "/tokenize", {"model": BASE, "prompt": "x", "messages": [{"role": "user", "content": "x"}]})
    assert both.status == 400 and both.message.endswith("correct it, or see /docs.") or both.message
    assert ask(served.url, "/version").json["version"]
