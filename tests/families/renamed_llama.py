"""A family that transformers does not have: Llama with other names for its layers, and a module override."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP

from foreword.backbone.family_overrides.model_overrides import ModelOverrides


class RenamedLlamaConfig(LlamaConfig):
    model_type = "renamed_llama"


class RenamedAttention(LlamaAttention):
    """The same attention; its layers are wq, wk, wv, wo."""

    def __init__(self, config: LlamaConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        for new, old in (("wq", "q_proj"), ("wk", "k_proj"), ("wv", "v_proj"), ("wo", "o_proj")):
            self._modules[new] = self._modules.pop(old)

    q_proj = property(lambda self: self.wq)
    k_proj = property(lambda self: self.wk)
    v_proj = property(lambda self: self.wv)
    o_proj = property(lambda self: self.wo)


class RenamedLlamaForCausalLM(LlamaForCausalLM):
    config_class = RenamedLlamaConfig

    def __init__(self, config: RenamedLlamaConfig) -> None:
        super().__init__(config)
        for index, layer in enumerate(self.model.layers):
            layer.self_attn = RenamedAttention(config, index)
        self.post_init()


class OwnMLP(LlamaMLP):
    """The same MLP, written by hand."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


REPLACED: dict[type[nn.Module], type[nn.Module]] = {LlamaMLP: OwnMLP}
OVERRIDES = ModelOverrides(REPLACED)

AutoConfig.register("renamed_llama", RenamedLlamaConfig)
AutoModelForCausalLM.register(RenamedLlamaConfig, RenamedLlamaForCausalLM)
