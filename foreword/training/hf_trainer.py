"""The trained parameters as a model, for other training loops: transformers' Trainer, TRL's SFTTrainer, or your own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor

from foreword.adapters.adapter import Adapter
from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.batch import Batch
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.backbone.trainer_model import (
    BaseModelOutput,
    CausalLMOutput,
    SequenceClassifierOutput,
    TrainerModel,
    led,
    next_logits,
    next_states,
)
from foreword.errors import DataError, ModelError, UsageError
from foreword.evaluation.atomic_file import atomic_file
from foreword.families.registry import check_site
from foreword.prompts.template import Bos, Soft
from foreword.recipe import LoraSpec, Recipe
from foreword.specs import PromptSpec
from foreword.tasks.base import Example, LengthBudget, Task, budget_for
from foreword.tasks.data.row_origin import map_rows
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify
from foreword.tasks.head_task import HeadInputs, pool
from foreword.tasks.template_task import TemplateTask
from foreword.training.initial_values import resolve_lora, setup_training
from foreword.training.run_log import versions
from foreword.training.trainable_module import TrainableModule

STATE = "model.safetensors"  # where Trainer finds the state of a run to resume

# Arguments of trainers that a prompt before each row does not support, and what to do about each.
_REFUSED = {
    "position_ids": "turn packing and padding_free off",
    "output_router_logits": "set router_aux_loss_coef=0.0, as a frozen router cannot be balanced",
}


def trainable(
    model: FrozenModel, what: Recipe | PromptSpec | LoraSpec, task: Task | None = None, examples: Sequence[Example] = (), *, seed: int = 0
) -> Trainable:
    """The trained part of a recipe, as a model for `transformers.Trainer`, TRL's `SFTTrainer` or your own loop.

    Without a task, or with one that a template words, it is a causal language model; with `HeadClassify` a classifier of sequences. `examples`
    are the task's: initial values come from their words, and a head's scale from the states of some (it needs them).
    Raises ModelError or UsageError for combinations that cannot be trained this way.
    """
    recipe, lora = resolve_lora(Recipe.of(what), model)
    check_site(recipe.prompt, model.shape)
    task = _task_for_trainer(Generate() if task is None else task, model.info, recipe)
    if task.head is not None and not examples:
        raise UsageError(f"a '{task.kind}' task has a head, which is scaled by the states of examples, but no examples came; give some.")
    length_budget = budget_for(recipe.prompt, model.info)
    train_features = [
        train_feature
        for part in map_rows(examples[:16], lambda example: task.train_features(example, model.info, length_budget)[0])
        for train_feature in part
    ]
    read, tuning = setup_training(model, recipe, task, task.material(examples), train_features, seed, lora)
    return Trainable(model, read, recipe, task, length_budget, tuning, seed)


@final
class Trainable(TrainerModel):
    """A model whose parameters are the prompt's, the head's and LoRA's alone; the frozen model is used and never changed.

    Logits stand at the caller's tokens: at t what predicts token t + 1. An input-level prompt comes after the first special tokens of
    each row, whichever side is padded.
    """

    def __init__(
        self,
        base: FrozenModel,
        read: FrozenModel,
        recipe: Recipe,
        task: Task,
        length_budget: LengthBudget,
        tuning: TrainableModule,
        seed: int,
    ) -> None:
        super().__init__(read)
        self.base, self.recipe, self.task, self.length_budget, self.tuning, self.seed = base, recipe, task, length_budget, tuning, seed
        self.loss_type = "ForCausalLM" if task.head is None else "ForSequenceClassification"

    def groups(self, rate: float | None = None) -> list[dict[str, Any]]:
        """Parameter groups with the learning rates that `fit` would use: `optimizers=(torch.optim.AdamW(model.groups()), None)`.

        `rate` is relative to the RMS of the model's own values, as in `TrainPlan`. A trainer's own rate would be absolute and the same for all.
        """
        return self.tuning.parameter_groups(rate, self.task.kind, self.base.shape.kind)

    def features(self, example: Example) -> dict[str, Any]:
        """An example of the task as collators take it: `input_ids`, `attention_mask`, `labels`. Texts that are too long lose their end."""
        found = self.task.train_features(example, self.base.info, self.length_budget)[0]
        row = found[0].rows[0]
        labels: Any = list(row.labels) if self.task.head is None else int(found[0].target[0])
        types = {"token_type_ids": list(row.types)} if self.base.typed and row.types else {}
        return {"input_ids": list(row.ids), "attention_mask": [1] * len(row.ids), **types, "labels": labels}

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Int[Tensor, "B T"] | None = None,
        token_type_ids: Int[Tensor, "B T"] | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        use_cache: bool | None = None,
        **others: Any,
    ) -> CausalLMOutput | SequenceClassifierOutput:
        """Logits [B, T, V], or [B, C] of a classifier, and with labels the loss: mean cross-entropy of labels >= 0, shifted by one where they are tokens.

        `num_items_in_batch` divides the sum instead, where several batches make one step. There is no cache. Raises UsageError for what
        cannot be honoured, such as the position ids of packed rows.
        """
        batch, adapter_state = self._read(input_ids, attention_mask, token_type_ids, others)
        labels = self._labels(labels, input_ids)
        with self.recomputing():
            if self.task.head is not None:
                logits = self._classes(batch, adapter_state)
                return SequenceClassifierOutput(loss=_loss(logits, labels, num_items_in_batch), logits=logits)  # type: ignore[arg-type]  # outputs are typed as FloatTensor
            logits = next_logits(self.frozen, batch, adapter_state.tokens)
        following = None if labels is None else labels[:, 1:]
        return CausalLMOutput(loss=_loss(logits[:, :-1], following, num_items_in_batch), logits=logits)  # type: ignore[arg-type]  # outputs are typed as FloatTensor

    @property
    def base_model(self) -> Callable[..., BaseModelOutput]:  # type: ignore[override]  # TRL calls it, and reads nothing of it
        """The model without its output matrix, which TRL applies piece by piece: states that predict each token's successor."""
        return self._states

    def _states(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool | None = None, **others: Any
    ) -> BaseModelOutput:
        if self.task.head is not None:
            raise UsageError(f"a '{self.task.kind}' task has no output matrix, which this trainer needs; use transformers' Trainer.")
        batch, adapter_state = self._read(input_ids, attention_mask, None, others)
        with self.recomputing():
            return BaseModelOutput(last_hidden_state=next_states(self.frozen, batch, adapter_state.tokens))  # type: ignore[arg-type]  # outputs are typed as FloatTensor

    def _read(self, ids: Tensor, mask: Tensor | None, types: Tensor | None, others: dict[str, Any]) -> tuple[Batch, AdapterState]:
        for name, value in others.items():
            if value is not None and value is not False:
                raise UsageError(
                    f"the trainer passes '{name}', which a model with a prompt does not accept; {_REFUSED.get(name, 'leave it out')}."
                )
        self.check_device()
        return led(self.frozen, ids, mask, types, self.length_budget.soft_tokens), self.tuning()

    def _labels(self, labels: Tensor | None, input_ids: Tensor) -> Tensor | None:
        expected = input_ids.shape if self.task.head is None else input_ids.shape[:1]
        if labels is not None and labels.shape != expected:
            raise DataError(
                f"the labels have shape {list(labels.shape)}, but those of task '{self.task.kind}' need {list(expected)} here; make them agree."
            )
        return labels

    def _classes(self, batch: Batch, adapter_state: AdapterState) -> Float[Tensor, "B C"]:
        assert isinstance(self.task, HeadClassify)
        states = self.frozen.hidden(batch, adapter_state.tokens)
        inputs = HeadInputs(states, batch.mask.to(states.device), batch.labels.to(states.device))
        return adapter_state.needed_head()(pool(inputs, self.task.pooling))

    def adapter(self, task: Task | None = None) -> Adapter:
        """The present values, as an adapter of the task (by default the one this was made with).

        Raises UsageError for a template whose soft tokens do not come first, since they were trained there.
        """
        task = self.task if task is None else _task_for_trainer(task, self.base.info, self.recipe)
        if task.head != self.task.head:
            raise UsageError(
                f"the head of this '{task.kind}' task differs from the trained one; give the task that this model was made with."
            )
        return Adapter(
            recipe=self.recipe,
            shape=self.base.shape,
            tensors=self.tuning.bake(),
            task=task.to_dict(),
            base=self.base.name,
            base_fingerprint=self.base.fingerprint,
            tokenizer_fingerprint=self.base.tokenizer_fingerprint,
            provenance={"seed": self.seed, "versions": versions()},
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **kwargs: Any) -> None:  # type: ignore[override]  # `kwargs` takes the rest
        """Write an adapter's three files into a folder, beside whatever is there, and the state that a trainer resumes from."""
        if not is_main_process:
            return
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        for name, data in {STATE: save(state, {"format": "pt"}), **self.adapter().files(str(folder))}.items():
            with atomic_file(folder / name) as file:
                file.write(data)


def _task_for_trainer(task: Task, info: ModelInfo, recipe: Recipe) -> Task:
    """The task as this model reads it inside a trainer, where every row begins with the prompt."""
    if task.head is None and info.shape.kind != "causal":
        raise ModelError(
            f"{info.name} is not a causal model, so a trainer cannot train it to predict next tokens; use fit, or a task with a head."
        )
    if task.head is not None and not isinstance(task, HeadClassify):
        raise UsageError(f"a '{task.kind}' task cannot be trained outside of fit; use fit, or the task 'classify-head'.")
    task = task.for_model(info, recipe.prompt)
    if isinstance(task, TemplateTask) and recipe.prompt is not None and recipe.prompt.site == "input":
        first = [part for part in task.template.parts if part != Bos()]
        others = [part for part in first[1:] if isinstance(part, Soft)]
        if not isinstance(first[0], Soft) or others or Bos() in task.template.parts[1:]:
            raise UsageError(
                f"template '{task.template.source}' does not begin with its soft tokens, but inside a trainer the prompt comes before the text; "
                "begin it with {soft}."
            )
    return task


def _loss(logits: Float[Tensor, "*N C"], labels: Int[Tensor, "*N"] | None, count: Tensor | int | None) -> Float[Tensor, ""] | None:
    """Cross-entropy in fp32 of what has a label of at least 0, summed and divided by `count` or by how many there are."""
    if labels is None:
        return None
    labels = labels.to(logits.device)
    labelled = labels >= 0
    total = torch.nn.functional.cross_entropy(logits[labelled].float(), labels[labelled], reduction="sum")
    return total / (labelled.sum().clamp_min(1) if count is None else count)
