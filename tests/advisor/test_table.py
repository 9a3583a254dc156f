"""The arithmetic of soft prompts that guides get wrong: one test a row, the right number, and in a comment what is told elsewhere."""

from __future__ import annotations

from advisor.bases import base, plain

from foreword.advisor.memory_estimate import cache_bytes_per_token
from foreword.advisor.parameters import FLOAT32, Head, count_numbers
from foreword.methods import p_tuning_v2, prefix_tuning, prompt_tuning
from foreword.recipe import LoraSpec, Recipe

TWENTY = Recipe.of(prompt_tuning(20))


def test_twenty_tokens_of_a_hidden_width_of_4096() -> None:
    assert count_numbers(TWENTY, plain(4096, 32)).stored == 81_920  # guides: 20,480
    assert count_numbers(TWENTY, base("Llama-3-8B")).stored == 81_920


def test_twenty_tokens_on_llama_3_2_1b() -> None:
    assert count_numbers(TWENTY, base("Llama-3.2-1B")).stored == 40_960  # guides: 81,920


def test_a_prefix_of_twenty_with_all_heads() -> None:
    prefix = Recipe.of(prefix_tuning(20))
    assert count_numbers(prefix, plain(4096, 32)).stored == 5_242_880  # guides: 35 to 70 million "typical"


def test_the_same_prefix_with_grouped_queries() -> None:
    assert count_numbers(Recipe.of(prefix_tuning(20)), base("Llama-3-8B")).stored == 1_310_720  # K·D is 1,024, a quarter of H


def test_lora_of_rank_8_on_queries_and_values() -> None:
    lora = Recipe("lora", lora=LoraSpec(8))
    assert count_numbers(lora, plain(4096, 32)).trained == 4_194_304


def test_keys_and_values_of_thirty_tokens() -> None:
    per_token = cache_bytes_per_token(prefix_tuning(30), plain(4096, 32), "bfloat16")
    assert 30 * per_token == 15_728_640  # 15.7 MB a sequence, if each has a copy; guides: 15 MB
    assert cache_bytes_per_token(prompt_tuning(30), plain(4096, 32), "bfloat16") == per_token, "a compiled prompt takes the same"


def test_fifty_tasks_of_twenty_tokens() -> None:
    stored = count_numbers(TWENTY, plain(8192, 80, heads=64)).stored
    assert 50 * FLOAT32 * stored == 32_768_000  # 32.8 MB; guides: 33 MB


def test_bert_with_sixteen_tokens_in_every_layer_and_a_head() -> None:
    numbers = count_numbers(Recipe.of(p_tuning_v2(16)), base("BERT-base"), Head(2))
    assert (numbers.stored, numbers.head) == (294_912 + 1_538, 1_538)  # guides: 197,634


def test_the_projection_of_a_prefix_is_on_here_and_off_in_peft() -> None:
    from peft import PrefixTuningConfig

    assert PrefixTuningConfig(num_virtual_tokens=20).prefix_projection is False  # guides: on by default
    assert prefix_tuning(20).reparam.kind == "mlp"


def test_a_prompt_and_lora_together_are_the_sum_of_both() -> None:
    network, prompt, lora = base("Llama-3-8B"), Recipe.of(prefix_tuning(20)), Recipe("lora", lora=LoraSpec(8))
    both, parts = count_numbers(prompt + lora, network), [count_numbers(recipe, network) for recipe in (prompt, lora)]
    assert both.stored == sum(part.stored for part in parts)
    assert both.trained == sum(part.trained for part in parts)
