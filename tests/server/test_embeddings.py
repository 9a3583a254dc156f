"""Embeddings of an encoder, by OpenAI's client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tiny_encoders
import torch
from openai import OpenAI
from server.given import BASE, Served, ask, serve_engine

from foreword.serving.local_engine import LocalEngine

TEXTS = ["a joy to watch", "a dull mess of a film", "x"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = serve_engine(LocalEngine(tiny_encoders.build("bert"), str(tmp_path_factory.mktemp("none"))))
    yield found
    found.stop()
    found.join()


def states(text: str) -> torch.Tensor:
    """The encoder's last states, computed by transformers."""
    model = tiny_encoders.build("bert")
    made = model.tokenizer.inner(text, return_tensors="pt")
    return model.network.base_model(**made).last_hidden_state[0].detach()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("encoding", [{"encoding_format": "float"}, {}], ids=["float", "base64"])  # the client asks for base64 by default
def test_embeddings_are_the_encoders_states(encoder: Served, pooling: str, encoding: dict[str, Any]) -> None:
    with OpenAI(base_url=encoder.url + "/v1", api_key="none", max_retries=0) as client:
        name = client.models.list().data[0].id
        found = client.embeddings.create(model=name, input=TEXTS, extra_body={"pooling": pooling}, **encoding)
        alone = client.embeddings.create(model=name, input=TEXTS[1], extra_body={"pooling": pooling})
    for text, item in zip(TEXTS, found.data, strict=True):
        wanted = states(text)[0] if pooling == "cls" else states(text).mean(0)
        assert torch.allclose(torch.tensor(item.embedding), wanted / wanted.norm(), atol=1e-5)
    assert found.usage.prompt_tokens > 0 and alone.data[0].embedding == pytest.approx(found.data[1].embedding, abs=1e-5)


def test_what_makes_no_embedding(encoder: Served, served: Served) -> None:
    name = encoder.state.base.name
    for body, sentence in (
        ({"model": name, "input": "x", "dimensions": 3}, "`dimensions` is not supported; leave it out, or see /docs."),
        ({"model": name, "input": []}, "The request has no input; give at least one."),
    ):
        assert ask(encoder.url, "/v1/embeddings", body).message == sentence
    assert ask(served.url, "/v1/embeddings", {"model": BASE, "input": "x"}).message == (
        f"The model `{BASE}` is not an encoder, so it makes no embeddings; serve an encoder for them."
    )
    task = ask(served.url, "/v1/embeddings", {"model": "writer", "input": "x"})
    assert task.message == f"`writer` is a task, but embeddings are the base model's; ask for `{BASE}`."
    long = ask(encoder.url, "/v1/embeddings", {"model": name, "input": ["x", "a film " * 500]})
    assert long.status == 400 and "tokens" in long.message
    assert ask(encoder.url, "/v1/embeddings", {"model": name, "input": "a film " * 500, "truncate": True}).status == 200
