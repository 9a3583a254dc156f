"""What the server knows of the frozen model itself: its name, its size, and how its tokenizer writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.backbone.model_info import ModelInfo
from foreword.backbone.tokenizer import TextTokenizer
from foreword.server.http_errors import HTTPError
from foreword.shape import ModelShape

LONG_CHARS = 16 << 10  # of a text whose tokens are worth counting before the engine reads it


@dataclass(frozen=True)
class Base:
    """The frozen model under the name that clients know."""

    name: str
    shape: ModelShape
    tokenizer: TextTokenizer

    @classmethod
    def of(cls, info: ModelInfo, name: str | None = None) -> Base:
        return cls(name or info.name, info.shape, info.tokenizer)

    def estimate(self, text: str) -> int:
        """Tokens of a text for the limits of what may wait, at four bytes each: only the engine tokenises it, once."""
        return len(text.encode("utf-8", "replace")) // 4 + 1

    def check_fits(self, text: str) -> None:
        """Raise HTTPError for a long text with more tokens than the model reads, so that the engine never tokenises it. It may take some time."""
        if len(text) > LONG_CHARS and (count := len(self.tokenizer.encode(text))) > self.shape.positions:
            raise HTTPError(
                400,
                f"A text has {count} tokens, but at most {self.shape.positions} fit in {self.name}; shorten it, or set `truncate` to true.",
                param="input",
            )

    def piece(self, token: int) -> str:
        """A token as text; bytes of part of a character become U+FFFD."""
        return str(self.tokenizer.inner.decode([token]))

    def check_writes(self) -> None:
        """Raise HTTPError unless the model can continue a text."""
        if self.shape.kind != "causal":
            raise HTTPError(
                400, f"The model `{self.name}` is an {self.shape.kind}, which cannot continue a text; use one of its tasks.", param="model"
            )

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text, special ones too."""
        return str(self.tokenizer.inner.decode(list(ids), clean_up_tokenization_spaces=False))
