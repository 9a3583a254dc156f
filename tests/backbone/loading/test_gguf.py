"""A GGUF file read back as the model and the tokenizer it was written from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from foreword.backbone.loading import gguf
from foreword.errors import ModelError

TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "[multimodal]", "\n", "\n\n", "  ", "   ", *(f"<0x{b:02X}>" for b in range(256))]
TOKENS += ["\u2581", "a", "b", "c", "ab", "bc", "\u2581a", "\u2581ab"]
KINDS = [3, 3, 3, 3, 4, 4, 4, 4, 4, *[6] * 256, *[1] * 8]
WIDTH, LAYERS = 32, 2


def write(path: Path, architecture: str = "gemma3") -> dict[str, np.ndarray]:
    """A random two-layer Gemma 3 and its tokenizer, as llama.cpp would write them; returns its tensors."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(8)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([-1000.0] * len(TOKENS))
    writer.add_token_types(KINDS)
    for token_id, add in enumerate((writer.add_pad_token_id, writer.add_eos_token_id, writer.add_bos_token_id, writer.add_unk_token_id)):
        add(token_id)
    random = np.random.default_rng(0)
    shapes = {"attn_q": (32, WIDTH), "attn_k": (16, WIDTH), "attn_v": (16, WIDTH), "attn_output": (WIDTH, 32)}
    shapes |= {"ffn_gate": (48, WIDTH), "ffn_up": (48, WIDTH), "ffn_down": (WIDTH, 48), "attn_q_norm": (16,), "attn_k_norm": (16,)}
    shapes |= dict.fromkeys(("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"), (WIDTH,))
    named = {f"blk.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in shapes.items()}
    named |= {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    tensors = {f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in named.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("gguf")
    tensors = write(folder / "tiny.gguf")
    gguf.convert_gguf(folder / "tiny.gguf", folder / "out")
    return folder / "out", tensors


@pytest.mark.real
def test_the_weights_are_those_of_the_file_in_bf16(converted):
    folder, tensors = converted
    model = AutoModelForCausalLM.from_pretrained(folder)
    state = model.state_dict()
    assert model.dtype == torch.bfloat16
    pairs = {
        "token_embd": "model.embed_tokens",
        "blk.1.ffn_down": "model.layers.1.mlp.down_proj",
        "blk.0.attn_k": "model.layers.0.self_attn.k_proj",
    }
    for theirs, ours in pairs.items():
        assert torch.equal(state[f"{ours}.weight"], torch.from_numpy(tensors[f"{theirs}.weight"]).bfloat16())
    # llama.cpp stores Gemma's norms with the 1 added that the model adds itself.
    norm = torch.from_numpy(tensors["output_norm.weight"] - 1).bfloat16()
    assert torch.equal(state["model.norm.weight"], norm)


@pytest.mark.real
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("abc", ["ab", "c"]),  # "ab" stands before "bc" in the file
        ("bcab", ["bc", "ab"]),
        ("a ab", ["a", "\u2581ab"]),
        ("a  a", ["a", "\u2581\u2581", "a"]),
        ("a\n\nb", ["a", "\n\n", "b"]),
        ("é", ["<0xC3>", "<0xA9>"]),
        ("[multimodal]<eos>", ["[multimodal]", "<eos>"]),
    ],
)
def test_text_is_split_by_the_order_of_the_tokens_with_bos_in_front(converted, text, tokens):
    tokenizer = AutoTokenizer.from_pretrained(converted[0])
    assert tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) == ["<bos>", *tokens]
    assert tokenizer.decode(tokenizer(text).input_ids[1:]) == text


@pytest.mark.real
def test_the_tokenizer_pads_on_the_left(converted):
    tokenizer = AutoTokenizer.from_pretrained(converted[0])
    assert tokenizer.padding_side == "left"
    assert tokenizer(["a", "abc"], padding=True).input_ids == [[0, 2, TOKENS.index("a")], [2, TOKENS.index("ab"), TOKENS.index("c")]]


@pytest.mark.real
def test_nothing_is_printed(tmp_path, capfd):
    write(tmp_path / "tiny.gguf")
    capfd.readouterr()
    gguf.convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    assert capfd.readouterr() == ("", "")


@pytest.mark.real
def test_another_architecture_is_refused(tmp_path):
    write(tmp_path / "tiny.gguf", architecture="llama")
    with pytest.raises(ModelError) as error:
        gguf.convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    assert str(error.value) == ("'tiny.gguf' holds a 'llama' model, but only 'gemma3' is converted; load a safetensors checkpoint instead.")


@pytest.mark.parametrize("content", [None, b"PK\x03\x04 something else"])
def test_a_file_of_another_format_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(gguf, "find_spec", lambda name: name)
    source = tmp_path / "tiny.gguf"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(ModelError) as error:
        gguf.convert_gguf(source, tmp_path / "out")
    assert str(error.value) == f"'{source}' is not a GGUF file; give one that starts with the bytes 'GGUF'."


def test_the_missing_reader_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as error:
        gguf.convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    assert str(error.value) == (
        "reading 'tiny.gguf' needs the package 'gguf', which is not installed; run: pip install \"foreword[demo]\"."
    )
