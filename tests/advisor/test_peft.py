"""The row of the table that only PEFT can answer."""

from __future__ import annotations

import pytest


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks by the old name
def test_a_prompt_and_lora_cannot_stand_in_one_peft_model() -> None:
    """Guides say that PEFT supports it."""
    import tiny
    from peft import LoraConfig, PromptTuningConfig, get_peft_model

    prompted = get_peft_model(tiny.network("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="Cannot combine adapters with different peft types"):
        prompted.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="PROMPT_TUNING"):
        get_peft_model(tiny.network("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), mixed=True)
