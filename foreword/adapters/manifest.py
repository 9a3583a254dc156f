"""`foreword.json`: the description of an adapter, bound to its tensors by a digest. Strict on reading and writing; standard library only."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from foreword.adapters.folder import CONFIG, MANIFEST, TENSORS, Folder
from foreword.adapters.safetensors_file import KEY, PRECISIONS, TensorShape
from foreword.adapters.safetensors_file import read_tensors as read_numbers
from foreword.errors import AdapterError, UsageError
from foreword.recipe import Recipe
from foreword.shape import KVShape, ModelShape

MAX_BYTES = 1 << 26  # of the file: more than any model's names of tensors need
FORMAT_VERSION = 2  # 1 had a soft prompt's `spec` in place of `recipe` and `tensors`; it is still read
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_model.pkl")

Scores = dict[str, dict[str, float | int]]


@dataclass(frozen=True)
class Manifest:
    """Everything about an adapter except its tensors. `task` is a task's `to_dict`; `scores` maps a metric to value, stderr and n.

    `tensors` are the names, precisions and shapes of its numbers: `prompt_embeddings` [P, W], `head.…`, `lora.…` or `full.…`.
    """

    recipe: Recipe
    shape: ModelShape
    tensors: dict[str, TensorShape]
    task: dict[str, Any]
    base: str
    base_fingerprint: str
    tokenizer_fingerprint: str
    scores: Scores
    provenance: dict[str, Any]
    sha256: str
    size: int

    @property
    def length(self) -> int:
        """P, none without a soft prompt."""
        return self.recipe.prompt.length if self.recipe.prompt else 0

    @property
    def num_parameters(self) -> int:
        """Numbers stored."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    def to_json(self) -> bytes:
        """The file's bytes. A score that is not finite is written as null. Raises AdapterError for values that JSON cannot represent."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain |= {"recipe": self.recipe.to_dict(), "shape": self.shape.to_dict(), "scores": _nulls(self.scores)}
        plain["tensors"] = {name: {"dtype": kind.dtype, "shape": list(kind.shape)} for name, kind in self.tensors.items()}
        try:
            text = json.dumps({"format_version": FORMAT_VERSION, **plain}, indent=2, ensure_ascii=False, allow_nan=False)
            return (text + "\n").encode()
        except (TypeError, ValueError) as error:
            raise AdapterError(
                f"an adapter's task or provenance cannot be saved as JSON ({error}); give plain text, numbers, lists and mappings."
            ) from error

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Read what `to_json` wrote; raises AdapterError naming the key that is missing, unknown or unreadable."""
        try:
            found = json.loads(data, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise AdapterError(
                f"adapter '{where}' has a {MANIFEST} that is not valid JSON, perhaps truncated; copy the adapter again or retrain."
            ) from error
        if not isinstance(found, dict):
            raise AdapterError(f"adapter '{where}' has a {MANIFEST} that is not a JSON object; copy the adapter again or retrain.")
        version = found.pop("format_version", None)
        if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
            raise AdapterError(
                f"adapter '{where}' has format_version {version!r}, but this Foreword reads 1 to {FORMAT_VERSION}; "
                "update Foreword, or save the adapter again."
            )
        names = {f.name for f in fields(cls)}
        _check_keys(found, names if version > 1 else names - {"recipe", "tensors"} | {"spec"}, where)
        if version == 1:
            found["recipe"] = _checked("spec", lambda: {"method": found["spec"]["method"], "prompt": found.pop("spec")}, where)
        plain = {key: _checked(key, lambda key=key: _READERS[key](found[key]), where) for key in found}
        recipe, shape = plain["recipe"], plain["shape"]
        if version == 1:
            plain["tensors"] = {}
        if recipe.prompt:
            whole = _checked("recipe", lambda: (recipe.prompt.length, recipe.prompt.width(shape)), where)
            promised = plain["tensors"].setdefault(KEY, TensorShape("F32", whole)) if version == 1 else plain["tensors"].get(KEY)
            if promised != TensorShape("F32", whole):
                raise AdapterError(
                    f"adapter '{where}' has a {MANIFEST} whose recipe needs '{KEY}' as F32 {list(whole)}, but whose tensors differ; copy the adapter again or retrain."
                )
        return cls(**plain)


def read_manifest(folder: Folder) -> Manifest:
    """The manifest of a folder; raises AdapterError that says what the folder is instead."""
    if MANIFEST in folder.names:
        if (size := folder.size(MANIFEST)) > MAX_BYTES:
            raise AdapterError(
                f"adapter '{folder.where}' has a {MANIFEST} of {size:,} bytes, but at most {MAX_BYTES:,} are read; copy the adapter again or retrain."
            )
        return Manifest.from_json(folder.read(MANIFEST), folder.where)
    if CONFIG in folder.names:
        raise AdapterError(f"'{folder.where}' is an adapter of PEFT, without a {MANIFEST}; import it with `foreword import`.")
    raise AdapterError(f"'{folder.where}' is not an adapter of Foreword, it has no {MANIFEST}; give a folder that Foreword saved.")


def check_present(folder: Folder) -> None:
    """Raise AdapterError unless the folder has its tensors as safetensors."""
    if TENSORS in folder.names:
        return
    pickled = sorted(folder.names.intersection(PICKLES))
    if pickled:
        raise AdapterError(
            f"adapter '{folder.where}' has {pickled[0]}, a pickle, which can run code when it is read, "
            "and is never opened; save it as safetensors."
        )
    raise AdapterError(f"adapter '{folder.where}' has no {TENSORS}; copy it again or retrain.")


def check_config(folder: Folder) -> None:
    """Raise AdapterError for a broken config of PEFT: Foreword does not need it, but an incomplete folder is an error."""
    if CONFIG not in folder.names:
        return
    try:
        found = json.loads(folder.read(CONFIG))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise AdapterError(
            f"adapter '{folder.where}' has an {CONFIG} that is not a config of PEFT, perhaps truncated; copy the adapter again or retrain."
        )


def read_tensors(folder: Folder, manifest: Manifest) -> dict[str, bytearray]:
    """Each tensor's little-endian bytes once they have passed every check; raises AdapterError for the first that fails."""
    check_present(folder)
    check_config(folder)
    _check_size(folder, folder.size(TENSORS) or manifest.size, manifest)  # before a large wrong file is in memory
    data = folder.read(TENSORS)
    _check_size(folder, len(data), manifest)
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest.sha256:
        raise AdapterError(
            f"adapter '{folder.where}' has {TENSORS} with sha256 {digest[:16]}…, but {manifest.sha256[:16]}… was saved; "
            "copy it again or retrain."
        )
    return read_numbers(data, manifest.tensors, folder.where)


def _check_size(folder: Folder, size: int, manifest: Manifest) -> None:
    if size != manifest.size:
        raise AdapterError(
            f"adapter '{folder.where}' has {size} bytes in {TENSORS}, but {manifest.size} were saved; copy it again or retrain."
        )


def problems(folder: Folder) -> list[str]:
    """What is wrong with an adapter, one sentence each; an empty list for a complete one."""
    found = [] if CONFIG in folder.names else [f"adapter '{folder.where}' has no {CONFIG}, so PEFT cannot read it; save it again."]
    try:
        manifest = read_manifest(folder)
        read_tensors(folder, manifest)
    except AdapterError as error:
        return [str(error), *found]
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _nulls(scores: Scores) -> dict[str, dict[str, float | int | None]]:
    return {name: {key: value if math.isfinite(value) else None for key, value in score.items()} for name, score in scores.items()}


def _check_keys(found: Mapping[str, Any], expected: set[str], where: str) -> None:
    for kind, names in (("lacks", sorted(expected - set(found))), ("has the unknown", sorted(set(found) - expected))):
        if names:
            raise AdapterError(
                f"adapter '{where}' has a {MANIFEST} that {kind} key '{names[0]}'; copy the adapter again, or update Foreword."
            )


def _checked(key: str, read: Callable[[], Any], where: str) -> Any:
    """One value of the manifest, typed."""
    try:
        return read()
    except (TypeError, ValueError, KeyError, AttributeError, UsageError) as error:
        why = str(error).rstrip(".") if isinstance(error, UsageError) else "it has the wrong form"
        raise AdapterError(
            f"adapter '{where}' has a {MANIFEST} whose '{key}' cannot be read ({why}); copy the adapter again or retrain."
        ) from error


def _recipe(value: Any) -> Recipe:
    recipe = Recipe.from_dict(value)
    for part in (recipe, recipe.prompt):
        if part is not None:
            _text(part.method)
    return recipe


def _tensors(value: Any) -> dict[str, TensorShape]:
    found = {_text(name): TensorShape(entry["dtype"], tuple(entry["shape"])) for name, entry in value.items()}
    for kind in found.values():
        if kind.dtype not in PRECISIONS or not all(type(n) is int and n >= 0 for n in kind.shape):
            raise TypeError(value)
    return found


def _shape(value: Any) -> ModelShape:
    shape = ModelShape.from_dict(value)
    numbers = [
        shape.hidden,
        shape.embedding,
        shape.vocabulary,
        shape.positions,
        *(n for kv in shape.kv for n in (kv.heads, kv.dim, kv.window or 1)),
    ]
    if not all(type(n) is int and n > 0 for n in numbers) or not all(isinstance(kv, KVShape) for kv in shape.kv):
        raise TypeError(value)
    _text(shape.family)
    return shape


def _task(value: Any) -> dict[str, Any]:
    _text(value["kind"])
    if "template" in value:  # tasks with a head have none
        _text(value["template"])
        if not isinstance(value["bos"], bool):
            raise TypeError(value)
    return dict(value)


def _scores(value: Any) -> Scores:
    return {
        _text(name): {_text(key): math.nan if number is None else _number(number) for key, number in score.items()}
        for name, score in value.items()
    }


def _number(value: Any) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _sha256(value: Any) -> str:
    if len(bytes.fromhex(_text(value))) != 32:
        raise ValueError(value)
    return value


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(value)
    return value


_READERS: dict[str, Any] = {
    "recipe": _recipe,
    "shape": _shape,
    "tensors": _tensors,
    "task": _task,
    "base": _text,
    "base_fingerprint": _text,
    "tokenizer_fingerprint": _text,
    "scores": _scores,
    "provenance": lambda value: dict(value.items()),
    "sha256": _sha256,
    "size": _size,
}
