"""vLLM's endpoints around the tokenizer, and the server's version."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter
from starlette.responses import Response

from foreword.server.body_route import BodyRoute
from foreword.server.chat_format import ChatFormat, chat_tokens
from foreword.server.chat_prompt import check_messages, turn_of
from foreword.server.dependencies import ERRORS, Context, State
from foreword.server.http_errors import HTTPError
from foreword.server.responses import json_response
from foreword.server.server_state import ServerState
from foreword.server.tokenizer_schemas import DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse, VersionResponse

router = APIRouter(route_class=BodyRoute, responses=ERRORS)


@router.post("/tokenize", response_model=TokenizeResponse, tags=["tokenizer"])
async def tokenize(body: TokenizeRequest, state: State, context: Context) -> Response:
    """The tokens of a text, or of messages in the chat format."""
    state.find(body.model, context.caller)
    tokens = await state.threads.run(context.num_bytes, _tokens, state, body)
    strings = {"token_strs": state.base.tokenizer.inner.convert_ids_to_tokens(tokens)} if body.return_token_strs else {}
    return json_response({"tokens": tokens, "count": len(tokens), "max_model_len": state.base.shape.positions, **strings})


@router.post("/detokenize", response_model=DetokenizeResponse, tags=["tokenizer"])
async def detokenize(body: DetokenizeRequest, state: State, context: Context) -> Response:
    """The text of tokens."""
    state.find(body.model, context.caller)
    vocabulary = state.base.shape.vocabulary
    if not all(0 <= token < vocabulary for token in body.tokens):
        raise HTTPError(400, f"`tokens` has ids that are not from 0 to {vocabulary - 1}; correct them.", param="tokens")
    return json_response({"prompt": await state.threads.run(context.num_bytes, state.base.text, body.tokens)})


@router.get("/version", response_model=VersionResponse, tags=["tokenizer"])
async def show_version() -> Response:
    """The version of Foreword."""
    return json_response({"version": version("foreword")})


def _tokens(state: ServerState, body: TokenizeRequest) -> list[int]:
    if body.messages is not None:
        check_messages(state, body.messages)
        how = ChatFormat((), body.chat_template_kwargs, body.add_generation_prompt, body.continue_final_message)
        return list(chat_tokens(state.base, [turn_of(message) for message in body.messages], how))
    text = body.prompt or ""
    if len(text) > state.limits.text_chars:
        raise HTTPError(
            400, f"A text has {len(text)} characters, but at most {state.limits.text_chars} are allowed; shorten it.", param="prompt"
        )
    opening = state.base.tokenizer.opening if body.add_special_tokens else ()
    return [*opening, *state.base.tokenizer.encode(text)]
