"""What a run trains, as plain data: a soft prompt, LoRA, all weights or a head alone, and their sums. Strict JSON in and out, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from foreword.errors import UsageError
from foreword.specs import PromptSpec, two_of_a_kind

Quantize = Literal["nf4", "int8"]


@dataclass(frozen=True)
class LoraSpec:
    """Hu et al. 2021 (arXiv:2106.09685): W + (alpha / r)·B·A on chosen linear layers, A [r, n], B [m, r]; rsLoRA (arXiv:2312.03732) divides by √r.

    `targets` is "attention" (queries and values), "all-linear", or names of modules. `path` starts from a saved LoRA (a folder of PEFT's or
    Foreword's); with `frozen` it is not trained, only the parts added to it are. PEFT applies it.
    """

    r: int = 8
    alpha: float = 16.0
    targets: str | tuple[str, ...] = "attention"
    rslora: bool = False
    dropout: float = 0.0
    path: str | None = None
    frozen: bool = False

    def __post_init__(self) -> None:
        if type(self.r) is not int or self.r < 1:
            raise UsageError(f"LoRA's r is {self.r!r}, but it must be a whole number of at least 1.")
        if not self.alpha > 0:
            raise UsageError(f"LoRA's alpha is {self.alpha}, but it must be above 0; twice r is common.")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"LoRA's dropout is {self.dropout}, but it must be at least 0 and below 1.")
        if isinstance(self.targets, list):
            object.__setattr__(self, "targets", tuple(self.targets))
        if self.frozen and self.path is None:
            raise UsageError("a frozen LoRA needs a path; give the saved LoRA that the prompt is trained on.")

    def __add__(self, other: object) -> Recipe:
        return Recipe.of(self) + other

    def __radd__(self, other: object) -> Recipe:
        return Recipe.of(other) + self


@dataclass(frozen=True)
class Recipe:
    """What is trained for one task. All weights (`full`) or parts: `prompt`, `lora`; a task's head is always trained with them.

    A recipe of none of these trains the head alone, or is a written prompt with `shots` examples before the text.
    `quantize` loads the base in 4-bit NF4 or 8-bit integers first.
    """

    method: str
    prompt: PromptSpec | None = None
    lora: LoraSpec | None = None
    full: bool = False
    quantize: Quantize | None = None
    shots: int = 0

    def __post_init__(self) -> None:
        if self.full and (self.prompt or self.lora or self.quantize):
            raise UsageError(f"method '{self.method}' trains all weights and something else, which cannot be combined; choose one.")

    @property
    def trains(self) -> bool:
        """Whether anything but a head is trained."""
        return self.full or self.prompt is not None or (self.lora is not None and not self.lora.frozen)

    @classmethod
    def of(cls, what: object) -> Recipe:
        """A recipe from a recipe or one of its parts."""
        if isinstance(what, cls):
            return what
        if isinstance(what, PromptSpec):
            return cls(what.method, prompt=what)
        if isinstance(what, LoraSpec):
            return cls("lora", lora=what)
        raise UsageError(f"{type(what).__name__} cannot be trained; give a soft prompt, LoRA, or a sum of both.")

    def __add__(self, other: object) -> Recipe:
        """Both together: `prefix_tuning(20) + lora(8)` is one adapter. Raises UsageError for two of a kind."""
        other = Recipe.of(other)
        for part in ("prompt", "lora"):
            if getattr(self, part) and getattr(other, part):
                raise UsageError(two_of_a_kind(self.method, other.method, part))
        if any(not (part.full or part.prompt or part.lora) for part in (self, other)):
            raise UsageError(f"{self.method} + {other.method} cannot be trained together; add a soft prompt and LoRA.")
        return replace(
            self,
            method=f"{self.method}+{other.method}",
            prompt=self.prompt or other.prompt,
            lora=self.lora or other.lora,
            full=self.full or other.full,
            quantize=self.quantize or other.quantize,
        )

    def __radd__(self, other: object) -> Recipe:
        return Recipe.of(other) + self

    def to_dict(self) -> dict[str, Any]:
        """As JSON; parts that are absent are left out."""
        plain: dict[str, Any] = {"method": self.method}
        if self.prompt:
            plain["prompt"] = self.prompt.to_dict()
        if self.lora:
            plain["lora"] = asdict(self.lora)
        return plain | {name: getattr(self, name) for name in ("full", "quantize", "shots") if getattr(self, name)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read what `to_dict` wrote; raises UsageError naming an unknown key, KeyError where the method is missing."""
        data = dict(data)
        for known, found in ((cls, data), (LoraSpec, data.get("lora") or {})):
            unknown = sorted(set(found) - {f.name for f in fields(known)})
            if unknown:
                raise UsageError(f"{known.__name__} has no key '{unknown[0]}'; it was written by another version or by hand.")
        if "prompt" in data:
            data["prompt"] = PromptSpec.from_dict(data["prompt"])
        if "lora" in data:
            lora = dict(data["lora"])
            if isinstance(lora.get("targets"), list):
                lora["targets"] = tuple(lora["targets"])
            data["lora"] = LoraSpec(**lora)
        return cls(method=data.pop("method"), **data)
