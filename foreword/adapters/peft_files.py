"""A folder that PEFT saved: its config and its tensors. Nothing is ever unpickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from foreword.adapters.folder import CONFIG, MANIFEST, TENSORS
from foreword.adapters.manifest import PICKLES
from foreword.adapters.tensor_files import read_tensors_file
from foreword.errors import AdapterError

# What an import keeps of a config, as its provenance.
KEPT = ("peft_type", "base_model_name_or_path", "revision", "task_type", "peft_version", "num_frozen_tokens")


@dataclass(frozen=True)
class PeftFolder:
    """What PEFT saved."""

    path: Path
    config: dict[str, Any]

    @property
    def where(self) -> str:
        return str(self.path)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Its numbers; raises AdapterError for pickles and broken files."""
        return _tensors(self.path)

    @property
    def peft_type(self) -> str:
        return self.config["peft_type"]


def read_folder(folder: Path) -> PeftFolder:
    """The folder of one adapter; raises AdapterError for other folders and for several adapters in one."""
    folder = _saved_under(folder)
    return PeftFolder(folder, _config(folder))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"'{folder}' has an {CONFIG} that is not a config of PEFT; copy the folder again.") from error
    return config


def _saved_under(folder: Path) -> Path:
    """The folder of the config: PEFT puts an adapter that is not named "default" into a folder of its name."""
    if (folder / MANIFEST).is_file():
        raise AdapterError(f"'{folder}' is already an adapter of Foreword; use it as it is.")
    if (folder / CONFIG).is_file():
        return folder
    inside = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if len(inside) == 1:
        return folder / inside[0]
    if inside:
        raise AdapterError(f"'{folder}' holds several adapters, {', '.join(inside)}; give the folder of one.")
    raise AdapterError(f"'{folder}' has no {CONFIG}; give a folder that PEFT saved.")


def _tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / TENSORS).is_file():
        return read_tensors_file(folder / TENSORS)
    pickled = [name for name in PICKLES if (folder / name).exists()]
    if pickled:
        raise AdapterError(
            f"'{folder / pickled[0]}' is a pickle, which can run code when it is read, and is never opened; "
            "save it with PEFT's safe_serialization=True."
        )
    raise AdapterError(f"'{folder}' has no {TENSORS}; copy the folder again.")
