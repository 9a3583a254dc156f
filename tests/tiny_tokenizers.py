"""Tiny tokenizers of encoders, made in code: WordPiece as BERT's, byte-level as RoBERTa's, Unigram as XLM-R's and ALBERT's."""

from __future__ import annotations

from functools import cache

import tiny
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
ROBERTA = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "cls_token": "<s>",
    "sep_token": "</s>",
}
SIZE = 320


def _finish(core: Tokenizer, names: dict[str, str]) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


@cache
def bert() -> PreTrainedTokenizerFast:
    """[PAD] [UNK] [CLS] [SEP] [MASK], lower case without accents, `##` pieces, token types 0 and 1."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.train_from_iterator(
        tiny.CORPUS, trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=list(BERT.values()), show_progress=False)
    )
    _fill(core)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return _finish(core, BERT)


@cache
def roberta() -> PreTrainedTokenizerFast:
    """<s> <pad> </s> <unk> <mask> in RoBERTa's order of ids; two texts as <s> a </s></s> b </s>, all of one type."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = list(dict.fromkeys(ROBERTA.values()))
    core.train_from_iterator(
        tiny.CORPUS, trainers.BpeTrainer(vocab_size=SIZE, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    )
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return _finish(core, ROBERTA)


@cache
def xlm_roberta() -> PreTrainedTokenizerFast:
    """Unigram over words that begin with a low line, as SentencePiece makes them; the ids and the frame are RoBERTa's."""
    core = Tokenizer(models.Unigram())
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    names = list(dict.fromkeys(ROBERTA.values()))
    core.train_from_iterator(
        tiny.CORPUS, trainers.UnigramTrainer(vocab_size=SIZE, special_tokens=names, unk_token="<unk>", show_progress=False)
    )
    _fill(core)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _finish(core, ROBERTA)


def _fill(core: Tokenizer) -> None:
    """Words that never occur, up to the vocabulary of the tiny models."""
    core.add_tokens([f"filler{number}" for number in range(SIZE - core.get_vocab_size())])
