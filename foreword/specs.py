"""What to train, as plain data: site, re-parameterisation and initialiser of a soft prompt. Strict JSON in and out, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from foreword.errors import UsageError
from foreword.shape import KVShape, ModelShape

Site = Literal["input", "kv"]
Window = Literal["model", "pinned"]
Layers = str | tuple[int, ...]
Parts = str | tuple[str, ...]

INIT_KINDS = ("default", "random", "uniform", "vocabulary", "text", "labels", "mean", "kv_of_text", "adapter", "file")


@dataclass(frozen=True)
class Reparam:
    """How the trained parameters become virtual tokens: `direct`, `mlp` or `lstm` (a bidirectional LSTM, then an MLP)."""

    kind: Literal["direct", "mlp", "lstm"] = "direct"
    hidden: int = 512
    layers: int = 2

    def __post_init__(self) -> None:
        _one_of("re-parameterisation", self.kind, ("direct", "mlp", "lstm"))
        _positive("the hidden width of a re-parameterisation", self.hidden)
        _positive("the number of LSTM layers", self.layers)


@dataclass(frozen=True)
class Init:
    """Where the first values come from; `text` or `path` belong to the kinds that need them. See `foreword/prompts/init.py` for sources."""

    kind: str = "default"
    text: str | None = None
    path: str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        _one_of("initialiser", self.kind, INIT_KINDS)
        if self.kind in ("adapter", "file") and not self.path:
            raise UsageError(f"initialiser '{self.kind}' needs a path; give one, for example --init {self.kind}:PATH.")
        if self.path and self.kind not in ("adapter", "file"):
            raise UsageError(f"initialiser '{self.kind}' takes no path, but got '{self.path}'; use 'adapter' or 'file' for a path.")


@dataclass(frozen=True)
class PromptSpec:
    """A soft prompt as data: P virtual tokens at a site, a re-parameterisation, an initialiser.

    `layers` chooses layers of the kv site: "all", "last:N" or a list of indices. `dropout` drops whole numbers of a kv prefix
    while training (P-tuning v2's code). `parts` chooses among "encoder", "decoder" and "cross" of an encoder–decoder. `window` says
    whether a kv prefix fades with a sliding window ("model") or stays ("pinned").
    """

    method: str
    length: int
    site: Site
    reparam: Reparam = field(default_factory=Reparam)
    init: Init = field(default_factory=Init)
    layers: Layers = "all"
    dropout: float = 0.0
    window: Window = "pinned"
    parts: Parts = "all"

    def __post_init__(self) -> None:
        _one_of("site", self.site, ("input", "kv"))
        _one_of("window", self.window, ("model", "pinned"))
        _positive("num_virtual_tokens", self.length)
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout is {self.dropout}, but it must be at least 0 and below 1; 0.1 is common.")
        if isinstance(self.layers, list):
            object.__setattr__(self, "layers", tuple(self.layers))
        if self.parts != "all":
            object.__setattr__(self, "parts", (self.parts,) if isinstance(self.parts, str) else tuple(self.parts))
        if self.site == "input" and self.parts != "all":
            raise UsageError(
                f"parts {', '.join(self.parts)} do not apply to the input site; leave parts out, or use a method of the kv site."
            )
        if self.site == "input" and self.layers != "all":
            raise UsageError(f"layers '{self.layers}' do not apply to the input site; leave layers out, or use a method of the kv site.")

    def chosen_layers(self, shape: ModelShape) -> tuple[int, ...]:
        """Indices into `shape.kv` of the attentions that get a prefix, ascending; raises UsageError for layers or parts the model does not have.

        Layers are counted within each part: "last:2" on an encoder–decoder means the last two of each chosen part.
        """
        return tuple(
            sorted(i for part in self.chosen_parts(shape) for i in self._within([i for i, kv in enumerate(shape.kv) if kv.part == part]))
        )

    def chosen_parts(self, shape: ModelShape) -> tuple[str, ...]:
        """The parts of the model that get a prefix; raises UsageError for parts the model does not have."""
        if self.parts == "all":
            return shape.parts
        bad = [part for part in self.parts if part not in shape.parts]
        if bad or not self.parts or len(set(self.parts)) != len(self.parts):
            has = f"has {', '.join(shape.parts)}" if "self" not in shape.parts else "is one stack without parts"
            raise UsageError(
                f"parts {', '.join(self.parts) or 'none'} do not exist in a model that {has}; leave parts out, or choose among its parts."
            )
        return tuple(self.parts)

    def _within(self, own: list[int]) -> list[int]:
        """The chosen ones of a part's indices."""
        n = len(own)
        if self.layers == "all":
            return own
        if isinstance(self.layers, str):
            head, _, count = self.layers.partition(":")
            if head != "last" or not count.isdecimal() or not 1 <= int(count) <= n:
                raise UsageError(
                    f"layers '{self.layers}' are not valid for a model of {n} layers; give 'all', 'last:N' or indices below {n}."
                )
            return own[-int(count) :]
        bad = [i for i in self.layers if not 0 <= i < n]
        if bad or not self.layers or len(set(self.layers)) != len(self.layers):
            raise UsageError(
                f"layers {list(self.layers)} are not valid for a model of {n} layers; give distinct indices from 0 to {n - 1}."
            )
        return [own[i] for i in self.layers]

    def __add__(self, other: object) -> Any:
        """A recipe of both, such as `prefix_tuning(20) + lora(8)`, which the other part makes; raises UsageError for a second soft prompt."""
        if isinstance(other, PromptSpec):
            raise UsageError(two_of_a_kind(self.method, other.method, "prompt"))
        return NotImplemented

    def kv_shapes(self, shape: ModelShape) -> tuple[KVShape, ...]:
        """Key/value shapes of the chosen attentions."""
        return tuple(shape.kv[i] for i in self.chosen_layers(shape))

    def width(self, shape: ModelShape) -> int:
        """W: numbers of one virtual token, E at the input site, Σ 2·K·D over the chosen layers at the kv site."""
        return shape.embedding if self.site == "input" else sum(layer.width for layer in self.kv_shapes(shape))

    def parameters(self, shape: ModelShape) -> int:
        """Numbers stored per task: P·W."""
        return self.length * self.width(shape)

    def to_dict(self) -> dict[str, Any]:
        layers = list(self.layers) if isinstance(self.layers, tuple) else self.layers
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.parts == "all":
            del plain["parts"]
        else:
            plain["parts"] = list(self.parts)
        return {**plain, "layers": layers, "reparam": vars(self.reparam).copy(), "init": vars(self.init).copy()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PromptSpec:
        """Read what `to_dict` wrote; raises UsageError naming any unknown or missing key."""
        data = dict(_known(cls, data))
        for name in ("method", "length", "site"):
            if name not in data:
                raise UsageError(f"a prompt's spec has no '{name}'; it was written by another version or by hand.")
        data["reparam"] = Reparam(**_known(Reparam, data.get("reparam", {})))
        data["init"] = Init(**_known(Init, data.get("init", {})))
        if isinstance(data.get("layers"), list):
            data["layers"] = tuple(data["layers"])
            if not all(isinstance(index, int) for index in data["layers"]):
                raise UsageError(f"layers {list(data['layers'])} are not whole numbers; give indices of layers.")
        if isinstance(data.get("parts"), list):
            data["parts"] = tuple(data["parts"])
        return cls(**data)


def two_of_a_kind(first: str, second: str, part: str) -> str:
    """The error for the sum of two methods that both train a part."""
    return f"{first} + {second} has two parts of one kind ('{part}'), but a recipe has one of each; drop one."


def _known(cls: type, data: Mapping[str, Any]) -> Mapping[str, Any]:
    allowed = {f.name for f in fields(cls)}
    unknown = sorted(set(data) - allowed)
    if unknown:
        raise UsageError(f"{cls.__name__} has no key '{unknown[0]}'; known keys are {', '.join(sorted(allowed))}.")
    return data


def _one_of(what: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{what} '{value}' is not known; choose one of {', '.join(allowed)}.")


def _positive(what: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{what} is {value!r}, but it must be a whole number of at least 1.")
