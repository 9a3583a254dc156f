"""What the server knows of the frozen model itself: its name, its size, and how its tokenizer writes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foreword.backbone.model_info import ModelInfo
from foreword.backbone.tokenizer import TextTokenizer
from foreword.prompts.template import Template
from foreword.server.http_errors import HTTPError
from foreword.shape import ModelShape

_OPEN, _CLOSE = (
    "\ue000",
    "\ue001",
)  # placeholders for messages while a chat template is applied: private-use characters, which no template changes


@dataclass(frozen=True)
class Base:
    """The frozen model under the name that clients know."""

    name: str
    shape: ModelShape
    tokenizer: TextTokenizer

    @classmethod
    def of(cls, info: ModelInfo, name: str | None = None) -> Base:
        return cls(name or info.name, info.shape, info.tokenizer)

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer.encode(text))

    def piece(self, token: int) -> str:
        """A token as text; bytes of part of a character become U+FFFD."""
        return str(self.tokenizer.inner.decode([token]))

    def check_writes(self) -> None:
        """Raise HTTPError unless the model can continue a text."""
        if self.shape.kind != "causal":
            raise HTTPError(
                400, f"The model `{self.name}` is an {self.shape.kind}, which cannot continue a text; use one of its tasks.", param="model"
            )

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Messages (role, content) as tokens of the model's chat format, up to where the answer begins.

        Message contents are plain text and can never become special tokens of the format. Raises HTTPError for a model without one.
        """
        inner = self.tokenizer.inner
        if not inner.chat_template:
            raise HTTPError(400, f"The model `{self.name}` has no chat format; use /v1/completions, or one of its tasks.", param="model")
        turns = [{"role": message["role"], "content": f"{_OPEN}{index}{_CLOSE}"} for index, message in enumerate(messages)]
        try:
            laid_out = str(inner.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a chat template is code of the model's authors and may raise any exception
            raise HTTPError(
                400,
                f"The chat format of `{self.name}` does not accept these messages ({error}); change their roles or order.",
                param="messages",
            ) from error
        first = str(inner.bos_token) if inner.bos_token and laid_out.startswith(str(inner.bos_token)) else ""
        source = laid_out.removeprefix(first).replace("{", "{{").replace("}", "}}")
        source = re.sub(f"{_OPEN}([0-9]+){_CLOSE}", r"{m\1}", source)
        marker = "{bos}" if first and self.tokenizer.bos is not None else first
        body = source.rstrip(" ")  # a template moves its last spaces to the answer, a chat format keeps them
        values = {f"m{index}": message["content"] for index, message in enumerate(messages)}
        template = Template.parse(f"{marker}{body}{{spaces}}{{answer}}", bos=marker == "{bos}")
        return template.render({**values, "spaces": source[len(body) :]}, self.tokenizer, 0).ids
