"""An adapter: the artefact of training. A prompt's numbers, what they mean, and which base model and tokenizer they belong to."""

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
from foreword.adapters.tensors import check_finite, write_prompt
from foreword.backbone.frozen import FrozenModel
from foreword.errors import AdapterError, FingerprintError
from foreword.prompts.soft_prompt import as_tokens
from foreword.prompts.tokens import VirtualTokens
from foreword.shape import ModelShape
from foreword.specs import PromptSpec


@final
@dataclass(frozen=True, eq=False)
class Adapter:
    """A trained prompt as it is saved: `flat` [P, W] in fp32 on the CPU, `task` a task's `to_dict`, `scores` metric → value, stderr, n.

    A folder holds `adapter_model.safetensors` (key `prompt_embeddings`, PEFT's layout), `adapter_config.json` (PEFT's) and `foreword.json`.
    """

    spec: PromptSpec
    shape: ModelShape
    flat: Float[Tensor, "P W"]
    task: dict[str, Any]
    base: str
    base_fingerprint: str
    tokenizer_fingerprint: str
    scores: Scores = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (self.spec.length, self.spec.width(self.shape))
        if tuple(self.flat.shape) != expected:
            raise AdapterError(
                f"a prompt of shape {list(self.flat.shape)} came, but its spec and base model ask for {list(expected)}; make them agree."
            )
        object.__setattr__(self, "flat", self.flat.detach().to("cpu", torch.float32).contiguous())

    def tokens(self) -> VirtualTokens:
        """The prompt, read at its site."""
        return as_tokens(self.flat, self.spec, self.shape)

    def check(self, model: FrozenModel) -> None:
        """Raise FingerprintError unless the model and its tokenizer are those this adapter was trained on."""
        pairs = {
            "base model": (self.base_fingerprint, model.fingerprint),
            "tokenizer": (self.tokenizer_fingerprint, model.tokenizer_fingerprint),
        }
        for what, (recorded, found) in pairs.items():
            if recorded != found:
                raise FingerprintError(
                    f"the adapter was trained on '{self.base}' with {what} fingerprint {recorded}, "
                    f"but that of '{model.name}' is {found}; load '{self.base}' as it was then, or retrain."
                )

    def files(self, where: str) -> dict[str, bytes]:
        """The folder's files, the manifest last; `where` is for messages. Raises AdapterError for what must not be saved."""
        from foreword.adapters.peft import config_of  # peft reads and makes adapters

        data = self.flat.numpy().astype("<f4", copy=False).tobytes()
        check_finite(data, where)
        tensors = write_prompt(data, (self.flat.shape[0], self.flat.shape[1]))
        manifest = Manifest(
            spec=self.spec,
            shape=self.shape,
            task=self.task,
            base=self.base,
            base_fingerprint=self.base_fingerprint,
            tokenizer_fingerprint=self.tokenizer_fingerprint,
            scores=self.scores,
            provenance=self.provenance,
            sha256=hashlib.sha256(tensors).hexdigest(),
            size=len(tensors),
        ).to_json()
        Manifest.from_json(manifest, where)  # what cannot be read again must not be written
        config = config_of(self.spec, self.shape, self.task, self.base)
        return {TENSORS: tensors, CONFIG: json.dumps(config, indent=2, sort_keys=True).encode(), MANIFEST: manifest}

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the folder whole or not at all, even if killed; raises AdapterError if an adapter is there and `overwrite` is not set."""
        return write_folder(path, self.files(str(path)), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """Read a folder; raises AdapterError for anything cut short, changed, foreign or not finite. Pickles are never opened."""
        return read_whole(path, cls.read)

    @classmethod
    def read(cls, folder: Folder) -> Adapter:
        """The adapter in an open folder."""
        manifest = read_manifest(folder)
        data = np.frombuffer(read_tensors(folder, manifest), dtype="<f4").reshape(manifest.tensor_shape)
        return cls(
            spec=manifest.spec,
            shape=manifest.shape,
            flat=torch.from_numpy(data.astype(np.float32, copy=True)),
            task=manifest.task,
            base=manifest.base,
            base_fingerprint=manifest.base_fingerprint,
            tokenizer_fingerprint=manifest.tokenizer_fingerprint,
            scores=manifest.scores,
            provenance=manifest.provenance,
        )
