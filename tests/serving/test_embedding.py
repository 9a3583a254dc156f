"""Embeddings in the engine: one answer for each request, and a text that is wrong fails alone."""

from __future__ import annotations

import tiny
import tiny_encoders

from foreword.serving.embedding import EmbeddingQueue
from foreword.serving.request import Answer, Done, Event, Failed, Request


def ask(name: str, text: str) -> Request:
    return Request(name, None, {"text": text}, pooling="first")


def test_what_is_wrong_with_one_text_fails_it_alone() -> None:
    queue, events = EmbeddingQueue(tiny_encoders.frozen("bert")), dict[str, list[Event]]()
    for request in (ask("good", "a film"), ask("long", "a film " * 500), ask("gone", "x"), ask("other", "a joy")):
        queue.add(request, events.setdefault(request.id, []).append)
    queue.cancel("gone")
    queue.cancel("unknown")
    assert queue.has_work
    queue.step()
    assert not queue.has_work and events["gone"] == [Done("cancelled", 0, 0)]
    (failed,) = events["long"]
    assert isinstance(failed, Failed) and failed.kind == "request" and "tokens" in failed.message
    for name in ("good", "other"):
        answer, done = events[name]
        assert isinstance(answer, Answer) and isinstance(answer.value, list) and isinstance(done, Done) and done.prompt_tokens > 2
    queue.step()


def test_a_causal_model_makes_no_embedding() -> None:
    queue, events = EmbeddingQueue(tiny.frozen("llama")), list[Event]()
    queue.add(ask("x", "a film"), events.append)
    queue.step()
    assert events == [Failed("request", "tiny-llama is not an encoder, so its states are no embeddings of a text; serve an encoder.")]
