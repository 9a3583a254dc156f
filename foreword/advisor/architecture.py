"""All weights of a base model from its config: how many numbers, and the matrices that LoRA may adapt. Exact for the families in the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from foreword.families.registry import FAMILIES
from foreword.families.shape_reader import read_shape
from foreword.families.weight_layout import Layout
from foreword.shape import ModelShape

_INNER = ("intermediate_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim", "encoder_ffn_dim")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers")


@dataclass(frozen=True)
class Matrix:
    """`count` matrices [rows, columns] of one role: q, k, v, o, gate, up, down (or fused: qkv, gate_up), an expert's, or a projection's."""

    role: str
    rows: int
    columns: int
    count: int = 1
    biased: bool = False

    @property
    def numbers(self) -> int:
        """Numbers of all of them, biases included."""
        return self.count * self.rows * (self.columns + self.biased)


@dataclass(frozen=True)
class Architecture:
    """A base model's sizes. `parameters` are all of them, `active` those used for one token (fewer in a mixture of experts).

    `depth` layers are run; in each a token's queries have width `queries` (over `heads` heads), its MLP width `inner`, its norms `normed` in all.
    `known` says whether the family has a record; if not, its layers are taken to be Llama's.
    """

    shape: ModelShape
    parameters: int
    active: int
    matrices: tuple[Matrix, ...]
    depth: int
    heads: int
    queries: int
    inner: int
    normed: int
    gated: bool = True
    known: bool = True

    @property
    def mixture(self) -> bool:
        """Whether it is a mixture of experts."""
        return any(matrix.role == "expert" for matrix in self.matrices)


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """Every weight of a transformers `config.json`; raises ModelError naming the first integer that is missing."""
    shape = read_shape(config)
    layout = FAMILIES[shape.family].layout if shape.family in FAMILIES else Layout()
    if config.get("is_gated_act") or "gated" in str(config.get("feed_forward_proj")):
        layout = replace(layout, gated=True)
    heads = int(_first(config, *_HEADS) or 1)
    inner = int(_first(config, *_INNER) or 4 * shape.hidden)
    queries = heads * shape.kv[0].dim
    if shape.kind == "encoder-decoder":
        matrices = tuple(_both_stacks(config, shape, layout, inner))
        depth = sum(kv.part != "cross" for kv in shape.kv)
    else:
        matrices = tuple(_one_stack(config, shape, layout, queries, inner))
        depth = int(_first(config, *_LAYERS) or shape.num_layers)
    matrices += _projections(shape, layout)
    stacks = sum(matrix.numbers for matrix in matrices)
    parameters = stacks + _tables(config, shape, layout) + _norms(config, shape, layout, heads) + layout.extra(config)
    experts = sum(matrix.numbers for matrix in matrices if matrix.role == "expert")
    chosen, of = int(config.get("num_experts_per_tok") or 1), _experts(config) or 1
    return Architecture(
        shape,
        parameters,
        active=parameters - experts + experts * chosen // of,
        matrices=matrices,
        depth=depth,
        heads=heads,
        queries=queries,
        inner=int(config.get("moe_intermediate_size") or inner) * chosen if experts else inner,
        normed=layout.layer_norms * shape.hidden + (queries + shape.kv[0].width // 2 if layout.query_norms else 0),
        gated=layout.gated,
        known=shape.family in FAMILIES,
    )


def _experts(config: Mapping[str, Any]) -> int:
    return int(_first(config, "num_experts", "num_local_experts", "n_routed_experts") or 0)


def _one_stack(config: Mapping[str, Any], shape: ModelShape, layout: Layout, queries: int, inner: int) -> Iterator[Matrix]:
    if config.get("relative_attention") and not config.get("share_att_key"):  # DeBERTa's keys and queries of positions
        kinds = sum(kind in str(config.get("pos_att_type")) for kind in ("c2p", "p2c"))
        yield Matrix("position", shape.hidden, shape.hidden, kinds * shape.num_layers, biased=True)
    if config.get("kv_lora_rank"):
        yield from _latent_attention(config, shape)
    else:
        yield from _attention(config, layout, shape.hidden, queries, shape.kv[0].width // 2, shape.num_layers)
    experts = _experts(config)
    dense = int(config.get("first_k_dense_replace") or 0) if experts else shape.num_layers
    yield from _mlp(config, layout, shape.hidden, inner, dense)
    if experts:
        wide, mixed = int(config.get("moe_intermediate_size") or inner), shape.num_layers - dense
        yield Matrix("expert", 3 * wide, shape.hidden, experts * mixed)
        yield Matrix("router", experts, shape.hidden, mixed)
        yield from _mlp(config, layout, shape.hidden, wide * int(config.get("n_shared_experts") or 0), mixed)


def _both_stacks(config: Mapping[str, Any], shape: ModelShape, layout: Layout, inner: int) -> Iterator[Matrix]:
    """Encoder, then decoder with self-attention and cross-attention."""
    layers = {part: [kv for kv in shape.kv if kv.part == part] for part in shape.parts}
    for own in layers.values():
        width = own[0].width // 2
        yield from _attention(config, layout, shape.hidden, width, width, len(own))
    yield from _mlp(config, layout, shape.hidden, inner, len(layers["encoder"]))
    yield from _mlp(config, layout, shape.hidden, int(config.get("decoder_ffn_dim") or inner), len(layers["decoder"]))


def _attention(config: Mapping[str, Any], layout: Layout, hidden: int, queries: int, keys: int, count: int) -> Iterator[Matrix]:
    fused = "qkv" in layout.fused
    inputs = {"qkv": queries + 2 * keys} if fused else {"q": queries, "k": keys, "v": keys}
    for role, rows in inputs.items():
        yield Matrix(role, rows, hidden, count, _biased(config, layout, role, "attention_bias"))
    yield Matrix("o", hidden, queries, count, _biased(config, layout, "o", "attention_bias"))


def _latent_attention(config: Mapping[str, Any], shape: ModelShape) -> Iterator[Matrix]:
    """DeepSeek's: queries, and keys with values, go through a narrow layer each."""
    heads, rotated, plain, value = (
        int(config[name]) for name in ("num_attention_heads", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    )
    narrow, latent, queries = int(config.get("q_lora_rank") or 0), int(config["kv_lora_rank"]), heads * (rotated + plain)
    sizes = [("q", queries, narrow or shape.hidden), ("kv_a", latent + rotated, shape.hidden), ("kv_b", heads * (plain + value), latent)]
    for role, rows, columns in [*sizes, *([("q_a", narrow, shape.hidden)] if narrow else []), ("o", shape.hidden, heads * value)]:
        yield Matrix(role, rows, columns, shape.num_layers)


def _mlp(config: Mapping[str, Any], layout: Layout, hidden: int, inner: int, count: int) -> Iterator[Matrix]:
    if not count or not inner:
        return
    inputs = {"gate_up": 2 * inner} if "gate_up" in layout.fused else {"gate": inner, "up": inner} if layout.gated else {"up": inner}
    for role, rows in inputs.items():
        yield Matrix(role, rows, hidden, count, _biased(config, layout, role, "mlp_bias"))
    yield Matrix("down", hidden, inner, count, _biased(config, layout, "down", "mlp_bias"))


def _biased(config: Mapping[str, Any], layout: Layout, role: str, switch: str) -> bool:
    return bool(config.get(switch, role in layout.biased))


def _tables(config: Mapping[str, Any], shape: ModelShape, layout: Layout) -> int:
    """Embeddings, learned positions, token types, the output matrix, a pooler."""
    hidden, embedding = shape.hidden, shape.embedding
    tied = bool(config.get("tie_word_embeddings", layout.tied)) or shape.kind == "encoder"
    stacks = 2 if shape.kind == "encoder-decoder" else 1
    copies = 1 if tied else 2 if layout.positions is None or stacks == 1 else 4  # BART's stacks then have separate embeddings
    words = shape.vocabulary * embedding * copies
    rows = 0 if layout.positions is None else int(_first(config, "max_position_embeddings", "n_positions") or 0) + layout.positions
    places = stacks * rows * (hidden if shape.kind != "encoder" else embedding)
    buckets = int(config.get("relative_attention_num_buckets") or 0) if stacks == 2 else 0
    types = int(config.get("type_vocab_size") or 0) * embedding if layout.types else 0
    pooler = hidden * (hidden + 1) if layout.pooler else 0
    return words + places + types + pooler + sum(buckets * shape.kv[i].heads for i in (0, -1) if stacks == 2)


def _projections(shape: ModelShape, layout: Layout) -> tuple[Matrix, ...]:
    """From the embedding's width to the hidden one, and back to the embedding width for models that generate."""
    if shape.embedding == shape.hidden:
        return ()
    into = Matrix("project", shape.hidden, shape.embedding, biased=shape.kind == "encoder" and layout.projection_bias)
    return (into, Matrix("project", shape.embedding, shape.hidden)) if shape.kind == "causal" else (into,)


def _norms(config: Mapping[str, Any], shape: ModelShape, layout: Layout, heads: int) -> int:
    kv = shape.kv[0]
    ends = 0 if layout.end_norm_switch and config.get(layout.end_norm_switch) is False else layout.end_norms
    embeddings = layout.embedding_norms * shape.embedding
    if shape.kind == "encoder-decoder":  # each attention and each MLP has its norm
        blocks = shape.num_layers + sum(kv.part != "cross" for kv in shape.kv)
        return layout.norm * (shape.hidden * (blocks + 2 * ends) + 2 * embeddings)
    widths = {"": 0, "head": 2 * kv.dim, "width": (heads + kv.heads) * kv.dim}
    own = shape.num_layers * (layout.layer_norms * shape.hidden + widths[layout.query_norms])
    return layout.norm * (own + ends * shape.hidden + embeddings)


def _first(config: Mapping[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)
