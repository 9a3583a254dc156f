"""An adapter: the result of training, with its task and the base model and tokenizer that it belongs to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foreword.adapters.folder import CONFIG, MANIFEST, TENSORS, Folder, read_whole, write_folder
from foreword.adapters.manifest import Manifest, Scores, read_manifest, read_tensors
from foreword.adapters.peft_config import config_of
from foreword.adapters.safetensors_file import KEY, TensorShape, check_finite, write_tensors
from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.fingerprint import quantization_in
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.backbone.weights import weight_adapters
from foreword.errors import AdapterError, FingerprintError
from foreword.prompts.head import Head
from foreword.prompts.soft_prompt import as_tokens
from foreword.prompts.tokens import VirtualTokens
from foreword.recipe import Recipe
from foreword.shape import ModelShape
from foreword.specs import PromptSpec
from foreword.tasks.registry import task_from_dict

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
HEAD = "head."


@final
@dataclass(frozen=True, eq=False)
class Adapter:
    """The trained tensors of one task, as they are saved: `tensors` on the CPU, `task` a task's `to_dict`, `scores` metric → value, stderr, n.

    `tensors` has `prompt_embeddings` [P, W] in fp32 where the recipe has a prompt (PEFT's key and layout), `head.weight` and `head.bias` where
    the task has a head, `lora.…` in PEFT's own names, `full.…` for all weights. A folder holds `adapter_model.safetensors`,
    `adapter_config.json` (PEFT's) and `foreword.json`.
    """

    recipe: Recipe
    shape: ModelShape
    tensors: dict[str, Tensor]
    task: dict[str, Any]
    base: str
    base_fingerprint: str
    tokenizer_fingerprint: str
    scores: Scores = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if spec := self.recipe.prompt:
            expected, found = (spec.length, spec.width(self.shape)), tuple(self.flat.shape)
            if found != expected:
                raise AdapterError(
                    f"the prompt has shape {list(found)}, but its spec and base model need {list(expected)}; make them agree."
                )
        object.__setattr__(self, "tensors", {name: _kept(name, tensor) for name, tensor in self.tensors.items()})

    @property
    def method(self) -> str:
        return self.recipe.method

    @property
    def spec(self) -> PromptSpec:
        """The soft prompt's spec; raises AdapterError where there is none."""
        if self.recipe.prompt is None:
            raise AdapterError(f"an adapter of method '{self.method}' holds no soft prompt; give one that does.")
        return self.recipe.prompt

    @property
    def flat(self) -> Float[Tensor, "P W"]:
        """The soft prompt's numbers; raises AdapterError where there are none."""
        if KEY not in self.tensors:
            raise AdapterError(f"an adapter of method '{self.method}' holds no soft prompt; give one that does.")
        return self.tensors[KEY]

    @property
    def num_parameters(self) -> int:
        """Numbers stored."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def tokens(self) -> VirtualTokens | None:
        """The prompt, read at its site."""
        return as_tokens(self.flat, self.spec, self.shape) if self.recipe.prompt else None

    def adapter_state(self) -> AdapterState:
        """The prompt and the head, as tasks read them; raises AdapterError for a head whose number of outputs is not that of the task."""
        baked = {name.removeprefix(HEAD): tensor for name, tensor in self.tensors.items() if name.startswith(HEAD)}
        head, spec = Head.read(baked) if baked else None, task_from_dict(self.task).head
        found, needed = head.spec.outputs if head else 0, spec.outputs if spec else 0
        if found != needed:
            raise AdapterError(
                f"the adapter's head has {found or 'no'} outputs, but its task '{self.task['kind']}' needs {needed}; "
                f"copy its {MANIFEST} again, or retrain."
            )
        return AdapterState(self.tokens(), head)

    def model(self, model: FrozenModel) -> FrozenModel:
        """The model that reads this adapter: `model` itself, or with the adapter's LoRA or weights."""
        if self.recipe.lora is None and not self.recipe.full:
            return model
        return weight_adapters.apply(model, self.recipe, tensors=self.tensors)[0]

    def check(self, info: ModelInfo) -> None:
        """Raise FingerprintError unless the model and its tokenizer are those this adapter was trained on."""
        recorded, found = (quantization_in(fingerprint) for fingerprint in (self.base_fingerprint, info.fingerprint))
        if recorded != found:
            kinds = [f"in {kind}" if kind else "without quantisation" for kind in (recorded, found)]
            cure = f"with quantize='{recorded}'" if recorded else "without quantize"
            raise FingerprintError(
                f"the adapter was trained on '{self.base}' {kinds[0]}, but '{info.name}' is loaded {kinds[1]}; load it {cure}, or retrain."
            )
        pairs = {
            "base model": (self.base_fingerprint, info.fingerprint),
            "tokenizer": (self.tokenizer_fingerprint, info.tokenizer_fingerprint),
        }
        for what, (recorded, found) in pairs.items():
            if recorded != found:
                raise FingerprintError(
                    f"the adapter was trained on '{self.base}' with {what} fingerprint {recorded}, "
                    f"but that of '{info.name}' is {found}; load the same version of '{self.base}', or retrain."
                )

    def files(self, where: str) -> dict[str, bytes]:
        """The folder's files, the manifest last; `where` is for messages. Raises AdapterError for values that must not be saved."""
        parts = {name: (TensorShape(_NAMES[tensor.dtype], tuple(tensor.shape)), _bytes(tensor)) for name, tensor in self.tensors.items()}
        for kind, data in parts.values():
            check_finite(data, where, kind.dtype)
        tensors = write_tensors(parts)
        manifest = Manifest(
            recipe=self.recipe,
            shape=self.shape,
            tensors={name: kind for name, (kind, _) in parts.items()},
            task=self.task,
            base=self.base,
            base_fingerprint=self.base_fingerprint,
            tokenizer_fingerprint=self.tokenizer_fingerprint,
            scores=self.scores,
            provenance=self.provenance,
            sha256=hashlib.sha256(tensors).hexdigest(),
            size=len(tensors),
        ).to_json()
        Manifest.from_json(manifest, where)  # never write a file that could not be read again
        config = config_of(self.recipe, self.shape, self.task, self.base)
        return {TENSORS: tensors, CONFIG: json.dumps(config, indent=2, sort_keys=True).encode(), MANIFEST: manifest}

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the folder atomically, even if killed; raises AdapterError if an adapter is there and `overwrite` is not set."""
        return write_folder(path, self.files(str(path)), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """Read a folder; raises AdapterError for files that are truncated, changed, of another format or not finite. Pickles are never opened."""
        return read_whole(path, cls.read)

    @classmethod
    def read(cls, folder: Folder) -> Adapter:
        """The adapter in an open folder."""
        manifest = read_manifest(folder)
        parts = read_tensors(folder, manifest)
        return cls(
            recipe=manifest.recipe,
            shape=manifest.shape,
            tensors={name: _tensor(parts[name], kind) for name, kind in manifest.tensors.items()},
            task=manifest.task,
            base=manifest.base,
            base_fingerprint=manifest.base_fingerprint,
            tokenizer_fingerprint=manifest.tokenizer_fingerprint,
            scores=manifest.scores,
            provenance=manifest.provenance,
        )


def _kept(name: str, tensor: Tensor) -> Tensor:
    """A tensor as it is saved: on the CPU, a prompt and a head in fp32."""
    exact = name == KEY or name.startswith(HEAD) or tensor.dtype not in _NAMES
    return tensor.detach().to("cpu", torch.float32 if exact else tensor.dtype).contiguous()


def _bytes(tensor: Tensor) -> bytes:
    """Little-endian bytes; numpy has no bfloat16, so 16-bit numbers are viewed as integers."""
    if tensor.dtype == torch.float32:
        return tensor.numpy().astype("<f4", copy=False).tobytes()
    return tensor.view(torch.int16).numpy().astype("<i2", copy=False).tobytes()


def _tensor(data: bytearray, kind: TensorShape) -> Tensor:
    if kind.dtype == "F32":
        return torch.from_numpy(np.frombuffer(data, dtype="<f4").astype(np.float32, copy=True)).view(kind.shape)
    bits = torch.from_numpy(np.frombuffer(data, dtype="<i2").astype(np.int16, copy=True))
    return bits.view(_DTYPES[kind.dtype]).view(kind.shape)
