"""A second module tree over the same weights: changes to the modules of one tree do not affect the other."""

from __future__ import annotations

import copy

from transformers import PreTrainedModel

_BITSANDBYTES = ("state", "quant_state")  # where its layers keep tensors that are neither parameters nor buffers


def share(network: PreTrainedModel) -> PreTrainedModel:
    """The same network again: new modules (some kilobytes each), the very same parameters and buffers."""
    kept = [*network.parameters(), *network.buffers()]
    kept += [value for module in network.modules() for name in _BITSANDBYTES if (value := vars(module).get(name)) is not None]
    return copy.deepcopy(network, {id(value): value for value in kept})
