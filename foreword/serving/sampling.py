"""Sampling parameters: how a request wants its next tokens chosen. What could not give a distribution is refused here, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from foreword.errors import UsageError

MIN_TEMPERATURE = 1e-10  # above 0; anything smaller cannot divide logits in fp32
MIN_REPETITION_PENALTY = 0.01
MAX_LOGPROBS = 20
MAX_STRINGS = 16  # stop strings
MAX_TOKEN_IDS = 128  # stop tokens
MAX_STRUCTURE_CHARS = 1 << 16  # compiling a schema takes time that grows faster than its length
STRUCTURES = ("json_schema", "regex", "choice", "grammar")


@dataclass(frozen=True)
class SamplingParams:
    """Temperature 0 is greedy. `top_p` (Holtzman et al. 2020, arXiv:1904.09751), `min_p` (arXiv:2407.01082), `repetition_penalty` (Keskar et al. 2019, arXiv:1909.05858).

    `frequency_penalty` and `presence_penalty` are OpenAI's: they count tokens of the answer only. `seed` makes draws repeatable.
    `logprobs` is how many alternatives to report for each token, `prompt_logprobs` for each token of the text; `max_tokens` 0 asks for those of the text alone.
    `stop` ends the answer before any of these strings, `stop_token_ids` before these tokens, but not before `min_tokens` tokens;
    `ignore_eos` lets the end-of-sequence token end nothing; `skip_special_tokens` leaves special tokens out of the text.
    One of these says what the answer must be: a `json_schema` (as JSON text), a `regex`, a `choice` of texts, a `grammar` (Lark's format, as llguidance reads it).
    Raises UsageError for what cannot be.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    json_schema: str | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        self._check_draw()
        self._check_length()
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            _check(name, value, value is None or _whole(value, 0, MAX_LOGPROBS), f"from 0 to {MAX_LOGPROBS}")
        texts = len(self.stop) <= MAX_STRINGS and all(isinstance(text, str) and text for text in self.stop)
        _check("stop", list(self.stop), texts, f"at most {MAX_STRINGS} strings, none of them empty")
        _check(
            "logit_bias",
            dict(self.logit_bias),
            all(_number(bias, -100, 100) for bias in self.logit_bias.values()),
            "numbers from -100 to 100",
        )
        _check(
            "logit_bias", dict(self.logit_bias), all(_whole(token, 0) for token in self.logit_bias), "a number for each of some token ids"
        )
        self._check_structure()

    def _check_draw(self) -> None:
        _check("temperature", self.temperature, _number(self.temperature, 0, 10), "from 0 (greedy) to 10")
        tiny = 0 < self.temperature < MIN_TEMPERATURE
        _check("temperature", self.temperature, not tiny, f"0 (greedy), or from {MIN_TEMPERATURE:g} to 10")
        _check("top_p", self.top_p, _number(self.top_p, 0, 1) and self.top_p > 0, "above 0 and at most 1")
        _check("top_k", self.top_k, _whole(self.top_k, 0), "at least 0 (0 leaves it out)")
        _check("min_p", self.min_p, _number(self.min_p, 0, 1), "from 0 to 1")
        penalty = _number(self.repetition_penalty, MIN_REPETITION_PENALTY, 10)
        _check("repetition_penalty", self.repetition_penalty, penalty, f"from {MIN_REPETITION_PENALTY:g} to 10")
        for name in ("frequency_penalty", "presence_penalty"):
            value = getattr(self, name)
            _check(name, value, _number(value, -2, 2), "from -2 to 2")
        _check("seed", self.seed, self.seed is None or _whole(self.seed), "a whole number")

    def _check_length(self) -> None:
        least = 1 if self.prompt_logprobs is None else 0
        _check("max_tokens", self.max_tokens, self.max_tokens is None or _whole(self.max_tokens, least), f"at least {least}")
        most = self.max_tokens
        if most is None:
            _check("min_tokens", self.min_tokens, _whole(self.min_tokens, 0), "at least 0")
        else:
            _check("min_tokens", self.min_tokens, _whole(self.min_tokens, 0, most), f"from 0 to max_tokens, which is {most}")
        tokens = len(self.stop_token_ids) <= MAX_TOKEN_IDS and all(_whole(token, 0) for token in self.stop_token_ids)
        _check("stop_token_ids", list(self.stop_token_ids), tokens, f"at most {MAX_TOKEN_IDS} token ids")

    def _check_structure(self) -> None:
        given = [name for name in STRUCTURES if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} came together, but an answer follows only one of them; leave out the others.")
        if given and self.min_tokens:
            raise UsageError(f"min_tokens is {self.min_tokens}, but an answer by a {given[0]} is as long as it says; leave out min_tokens.")
        if self.choice is not None:
            texts = bool(self.choice) and all(isinstance(text, str) and text for text in self.choice)
            _check("choice", list(self.choice), texts, "a list of texts, none of them empty")
        for name in given:
            value = getattr(self, name)
            _check(name, value, name == "choice" or isinstance(value, str), "a text")
            size = sum(map(len, value)) if name == "choice" else len(value)
            if size > MAX_STRUCTURE_CHARS:
                raise UsageError(f"{name} has {size} characters, but at most {MAX_STRUCTURE_CHARS} are allowed; simplify it.")

    @property
    def structured(self) -> bool:
        """Whether the answer must follow a schema, an expression, a choice or a grammar."""
        return any(getattr(self, name) is not None for name in STRUCTURES)

    @property
    def processes(self) -> bool:
        """Whether logits are changed before a token is chosen."""
        penalised = self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0
        return penalised or bool(self.logit_bias) or self.min_tokens > 0 or self.structured

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is all that is asked for."""
        return self.temperature == 0 and self.logprobs is None and not self.processes


def _number(value: object, least: float, most: float) -> bool:
    """Whether a value is a number in a range; one that is not finite is in none."""
    return isinstance(value, int | float) and least <= value <= most


def _whole(value: object, least: float = float("-inf"), most: float = float("inf")) -> bool:
    return isinstance(value, int) and least <= value <= most


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        came = repr(value)
        raise UsageError(f"{name} is {came if len(came) <= 200 else came[:199] + '…'}, but it must be {expected}.")
