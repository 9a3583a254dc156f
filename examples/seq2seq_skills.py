"""A prefix chooses the skill of an encoder–decoder. Tiny T5 and BART models learn to copy, reverse, shift and sort letters. A word before
each string says which; before one of five stands [?], and the model can only guess. Then the weights are frozen and only [?] is left: a prefix
trained on a thousand strings makes the model use one skill only.

What it shows: keys and values in the encoder, the decoder and its cross-attention reach what the weights can already do, as exactly as the
word does. What it does not show: a prefix teaching a skill that the weights lack.

    python examples/seq2seq_skills.py            both models, four skills: some minutes on one core
    python examples/seq2seq_skills.py --quick    BART, two skills: under a minute
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import foreword as fw
from foreword.tasks.seq2seq import Seq2Seq

LETTERS = "abcdefgh"
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
PAD, BOS, EOS = 0, 1, 2
TOLD = 0.8  # share of the strings of pre-training that name their skill
GUESS = "[?]"
ASKED = 0.95
SKILLS: dict[str, Callable[[str], str]] = {
    "copy": lambda text: text,
    "reverse": lambda text: text[::-1],
    "shift": lambda text: "".join(LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)] for letter in text),
    "sort": lambda text: "".join(sorted(text)),
}
Skills = Sequence[str]


@dataclass(frozen=True)
class Size:
    """Steps and rate of pre-training, steps of a prefix. Its rate is ten times the default: weights of a minute's training need a harder push."""

    pretraining: int
    rate: float
    steps: int = 300
    prefix_rate: float = 0.3
    length: int = 5


FULL = {"t5": Size(1600, 3e-3), "bart": Size(600, 2e-3)}
QUICK = {"bart": Size(400, 2e-3, steps=200)}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter, one a skill's word in brackets; a source ends in </s>."""
    words = (*SPECIALS, *LETTERS, GUESS, *map(word, SKILLS))
    core = Tokenizer(models.WordLevel({token: index for index, token in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\[.*?\]|."), "isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def word(skill: str) -> str:
    return f"[{skill}]"


def network(kind: str) -> PreTrainedModel:
    """An untrained model of two layers a stack."""
    torch.manual_seed(0)
    vocabulary = len(SPECIALS) + len(LETTERS) + 1 + len(SKILLS)
    ends = {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": PAD}
    if kind == "t5":
        sizes = {"d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 128, "num_layers": 2, "relative_attention_num_buckets": 16}
        return T5ForConditionalGeneration(T5Config(vocab_size=vocabulary, dropout_rate=0.0, **sizes, **ends))
    stack = {"layers": 2, "attention_heads": 4, "ffn_dim": 128}
    sizes = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in stack.items()}
    others = {"d_model": 64, "max_position_embeddings": 32, "dropout": 0.0, "bos_token_id": BOS}
    return BartForConditionalGeneration(BartConfig(vocab_size=vocabulary, **sizes, **others, **ends))


def strings(count: int, seed: int, without: frozenset[str] = frozenset()) -> list[str]:
    """Strings of 3 to 5 letters that are not among `without`."""
    drawn, found = random.Random(seed), list[str]()
    while len(found) < count:
        text = "".join(drawn.choices(LETTERS, k=drawn.randint(3, 5)))
        if text not in without:
            found.append(text)
    return found


def pretrain(model: PreTrainedModel, size: Size, skills: Skills, held_out: frozenset[str]) -> None:
    """Ordinary training of all weights on all skills."""
    reader, drawn = tokenizer(), random.Random(1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=size.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=size.rate, total_steps=size.pretraining, pct_start=0.1)
    for step in range(1, size.pretraining + 1):
        texts = strings(64, 10_000 + step, held_out)
        chosen = [drawn.choice(skills) for _ in texts]
        told = [word(skill) if drawn.random() < TOLD else GUESS for skill in chosen]
        x = reader([first + text for first, text in zip(told, texts, strict=True)], padding=True, return_tensors="pt")
        y = reader([SKILLS[skill](text) for skill, text in zip(chosen, texts, strict=True)], padding=True, return_tensors="pt").input_ids
        loss = model(input_ids=x.input_ids, attention_mask=x.attention_mask, labels=y.masked_fill(y == PAD, -100)).loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 200 == 0 or step == size.pretraining:
            print(f"  pre-training, step {step}: loss {loss.item():.3f}", flush=True)
    model.eval()


def examples(skill: str, texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"input": GUESS + text, "output": SKILLS[skill](text)} for text in texts]


def exact(reader: fw.Reader, skill: str, texts: Sequence[str], before: str = GUESS) -> float:
    """The share of strings that come out right."""
    answers = reader.predict([{"input": before + text} for text in texts], batch_size=50)
    return sum(answer.text == SKILLS[skill](text) for answer, text in zip(answers, texts, strict=True)) / len(texts)


def run(kind: str, size: Size, skills: Skills, folder: Path) -> dict[str, dict[str, float]]:
    """By skill: exact match on strings that no training saw, with its word, with [?], and with [?] and its prefix."""
    test = strings(200, 2)
    base = network(kind)
    print(kind)
    pretrain(base, size, skills, frozenset(test))
    model = fw.wrap(base, tokenizer(), name=f"tiny-{kind}")
    fingerprint, task = model.fingerprint, Seq2Seq(num_beams=2, max_new_tokens=8)
    plain = fw.Reader.plain(model, Seq2Seq("{input}{answer}", num_beams=2, max_new_tokens=8))
    found: dict[str, dict[str, float]] = {}
    for skill in skills:
        rows, out = examples(skill, strings(1020, 3, frozenset(test))), folder / f"{kind}-{skill}"
        every = size.steps // 2
        plan = fw.TrainPlan(size.steps, 32, size.prefix_rate, eval_every=every, checkpoint_every=every, eval_examples=20, tracker="none")
        fw.fit(model, fw.p_tuning_v2(size.length), task, rows[20:], rows[:20], plan, out=out)
        prefixed = fw.Reader.of(model, fw.Adapter.load(out))
        scores = {
            "word": exact(plain, skill, test, word(skill)),
            "guess": exact(plain, skill, test),
            "prefix": exact(prefixed, skill, test),
        }
        found[skill] = {**scores, "bytes": (out / "adapter_model.safetensors").stat().st_size}
        print(
            f"  {skill}: {scores['word']:.3f} with its word, {scores['guess']:.3f} with [?], {scores['prefix']:.3f} with [?] and its prefix"
        )
    assert fw.wrap(base, tokenizer()).fingerprint == fingerprint, "the weights are frozen"
    return found


def keep(path: Path, sizes: dict[str, Size], found: dict[str, Any]) -> None:
    """Write the results with what is needed to get them again, as the benchmarks do."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import store
    from provenance import provenance

    n = 200
    for scores in (scores for skills in found.values() for scores in skills.values()):
        scores["stderr"] = {name: math.sqrt(scores[name] * (1 - scores[name]) / n) for name in ("word", "guess", "prefix")}
    setting = {"told": TOLD, "letters": LETTERS, "test": n, "sizes": {kind: asdict(size) for kind, size in sizes.items()}}
    store.write(path, {"setting": setting, "asked": ASKED, "models": found, "provenance": provenance([0], torch.get_num_threads())})


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="BART, two skills")
    parser.add_argument("--out", type=Path, help="results file, such as benchmarks/results/seq2seq_skills.json")
    args = parser.parse_args(argv)
    sizes, skills = (QUICK, ("copy", "shift")) if args.quick else (FULL, tuple(SKILLS))
    with tempfile.TemporaryDirectory() as folder:
        found = {kind: run(kind, size, skills, Path(folder)) for kind, size in sizes.items()}
    if args.out:
        keep(args.out, sizes, found)
    worst = min(scores["prefix"] for by_skill in found.values() for scores in by_skill.values())
    print(f"worst with its prefix: {worst:.3f}")
    if worst < ASKED:
        raise SystemExit(f"asked for at least {ASKED}.")


if __name__ == "__main__":
    main()
