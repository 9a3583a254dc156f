"""Model types that are refused by name, each with the reason and what works instead."""

REFUSED: dict[str, str] = {
    "mamba": "it has no attention, so pads leak into its state and there are no keys and values to prefix; use a transformer of the same size, or LoRA",
    "mamba2": "it has no attention, so pads leak into its state and there are no keys and values to prefix; use a transformer of the same size, or LoRA",
    "qwen3_next": "its linear-attention layers keep a state instead of keys and values; use Qwen3, or LoRA",
    "lfm2": "its convolution layers keep a state instead of keys and values; use Llama or Qwen3, or LoRA",
    "jamba": "its state-space layers keep a state instead of keys and values; use Llama or Qwen3, or LoRA",
    "bloom": "its ALiBi attention is outside transformers' attention interface; use GPT-NeoX or Llama, or LoRA",
    "falcon": "its attention is outside transformers' attention interface; use Llama or Mistral, or LoRA",
    "mpt": "its ALiBi attention is outside transformers' attention interface; use GPT-NeoX or Llama, or LoRA",
}
