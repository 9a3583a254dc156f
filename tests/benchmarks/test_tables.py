"""Pages from result files: what was measured, where and how; nothing where nothing was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import store
import tables
import tables_nlu
import tables_serving

from foreword.methods import METHODS

BIRTH: dict[str, Any] = {
    "command": "python benchmarks/quality.py",
    "commit": "0123456789ab",
    "dirty": False,
    "date": "2026-01-02 03:04 UTC",
    "seeds": [0, 1],
    "versions": {"python": "3.11.1", "peft": "0.21.2"},
    "machine": {"cpu": "A CPU", "instructions": ["amx_bf16"], "threads": 2, "cores": 4, "memory_gib": 8.0, "load": 0.5},
}
BORN = (
    "`python benchmarks/quality.py` at commit 0123456789ab, 2026-01-02 03:04 UTC, A CPU (amx_bf16), "
    "2 threads on 4 cores, 8 GiB, load 0.5 before; python 3.11.1, peft 0.21.2."
)


def spread(median: float) -> dict[str, float]:
    return {"median": median, "lower_quartile": median, "upper_quartile": median, "least": median - 0.5, "most": median + 0.5}


def speed_case(method: str) -> dict[str, Any]:
    return {
        "case": {"name": "a case", "method": method, "length": 20},
        "setting": {"batch_size": 8, "text_tokens": 128, "labels_per_row": 2, "steps_per_round": 2},
        "asked": {"times_faster": 3.0, "peak_memory_share": 0.6},
        "met": True,
        "tokens_per_second": {"foreword": spread(1234.0), "peft": spread(400.0)},
        "times_faster": spread(3.1),
        "memory": {"foreword": {"peak": 2**31}, "peft": {"peak": 2**32}},
        "peak_memory_share": 0.5,
        "above_idle_share": 0.25,
        "share_of_peak": spread(0.61),
        "peak_flops": spread(1.5e12),
        "provenance": BIRTH,
    }


def result(system: str, variant: str, rate: float | None, seed: int, value: float) -> dict[str, Any]:
    score = {"accuracy": {"value": value, "stderr": 0.01, "n": 1000}, "loss": {"value": 1 - value, "stderr": 0.02, "n": 1000}}
    key = {"system": system, "method": "p-tuning", "variant": variant, "rate": rate, "seed": seed}
    return {**key, "monitor": value, "valid": score, "test": score, "session": 0}


def quality(results: list[dict[str, Any]]) -> dict[str, Any]:
    setting = {"data": {"test": "1000 examples, abc"}, "steps": 200, "batch_size": 16, "num_virtual_tokens": 20}
    return {"setting": setting, "sessions": [BIRTH], "runs": results}


RUNS = [
    result("foreword", "default", None, 0, 0.80),
    result("foreword", "default", None, 1, 0.82),
    *(result("peft", "mlp", rate, 0, value) for rate, value in ((1e-4, 0.5), (1e-3, 0.75), (1e-2, 0.7))),
]


STARTUP = {
    "setting": {"rounds": 20, "adapters": 4, "seconds_at_most": 0.5},
    "commands": {
        "python -c pass": {"seconds": spread(0.02), "times_python": spread(1.0)},
        "foreword --help": {"seconds": spread(0.16), "times_python": spread(8.0), "met": True},
        "foreword list": {"seconds": spread(0.6), "times_python": spread(30.0), "met": False},
    },
    "provenance": BIRTH,
}


def headed(what: str, factor: float, seed: int, value: float) -> dict[str, Any]:
    score = {"token_accuracy": {"value": value, "stderr": 0.01, "n": 100}}
    key = {"case": "pos", "model": "minilm", "what": what, "factor": factor, "seed": seed}
    return {**key, "diverged": None, "valid_loss": 1 - value, "num_parameters": 1234, "test": score, "session": 0}


HEADED = [
    *(headed("p-tuning-v2:5", 1.0, seed, value) for seed, value in enumerate((0.70, 0.72, 0.74))),
    headed("p-tuning-v2:5", 0.3, 0, 0.60),
    *(headed("p-tuning-v2:5", 3.0, seed, 0.80) for seed in range(2)),
    headed("lora", 1.0, 0, 0.75),
    {**headed("lora", 1.0, 1, 0.0), "diverged": "the loss is nan", "test": {}},
]

SKILLS = {
    "setting": {"test": 200},
    "asked": 0.95,
    "models": {
        "t5": {
            "copy": {"word": 1.0, "guess": 0.2, "prefix": 0.97, "bytes": 15480, "stderr": {"word": 0.0, "guess": 0.028, "prefix": 0.012}}
        }
    },
    "provenance": BIRTH,
}

NLU_SPEED = {
    "against_peft": {"lora": {"times_faster": spread(1.2), "asked": 1.0, "met": True}},
    "lengths": {"both": {"times_faster": spread(1.2), "asked": 1.3, "met": False}},
    "gradient_checkpointing": {"off": {"above_idle": 200 << 20}, "on": {"above_idle": 50 << 20}, "share_above_idle": 0.25},
    "provenance": BIRTH,
}

SERVE = {
    "cases": {
        "mixed": {
            "about": "Two tasks.",
            "ratios": {"two / one": {"asked": 0.95, "met": True, "median": 1.0, "least": 0.9, "most": 1.1}},
            "sides": {
                "two": {"seconds_to_first_token_p50_p90_p99": [0.5, 0.75, 1.0], "seconds_between_tokens_p50_p90_p99": [0.05, 0.1, 0.2]},
                "one": {"seconds_to_first_token_p50_p90_p99": [0.25, 0.25, 0.25], "seconds_between_tokens_p50_p90_p99": [0.05, 0.05, 0.05]},
                "theirs": {"seconds_to_first_token_p50_p90_p99": None, "seconds_between_tokens_p50_p90_p99": None},
            },
            "provenance": BIRTH,
        }
    }
}
FACTS = {"a load": {"found": 12.5, "asked": "at most 20", "met": True}, "beside": {"found": 1.2, "asked": "–", "met": None}}
SOAK = {
    "minutes": 10,
    "counts": {"answered": 1200, "left": 3},
    "memory": {"ratio": 1.01, "asked": 1.05},
    "wrong": ["one"],
    "provenance": BIRTH,
}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for method in METHODS:
        page = tmp_path / "methods" / f"{method}.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"# {method}\n\n{tables.START}\nold\n{tables.END}\n\n## Sources\n", "utf-8")
    return tmp_path


def test_speed_rows() -> None:
    assert tables.speed_table([speed_case("p-tuning")])[-1] == "| a case | 3.10 (2.60–3.60) | 2.00 GiB | 4.00 GiB | 0.50 | 0.25 |"
    assert tables.speed_notes([speed_case("p-tuning")])[-3:] == [
        "- a case: target: at least 3 times PEFT's speed and at most 0.6 of its peak memory, met; "
        "61% of the machine's matrix-product peak (1.50 Tflop/s).",
        "",
        BORN,
    ]


def test_headed_rows_say_the_default_and_the_best_of_three_rates() -> None:
    assert tables_nlu.nlu_table(HEADED)[2:] == [
        "| Parts of speech, Turkish Web Treebank | MiniLM | p-tuning-v2, P = 5 | 1,234 | 0.720 ± 0.015 | 3 | 0.800 ± 0.010 | 3 or more | 2 |",
        "|  | MiniLM | lora | 1,234 | diverged | 2 | – | – | – |",
    ]


def test_rows_of_skills() -> None:
    assert tables_nlu.skills_table(SKILLS)[-1:] == ["| t5 | copy | 1.000 ± 0.000 | 0.200 ± 0.028 | 0.970 ± 0.012 | 15,480 |"]
    page = "\n".join(tables.nlu_part({}, {}, SKILLS))
    assert "Strings of 200 that are exactly correct, ± one standard error; target: 0.95 with a prefix." in page and page.endswith(BORN)
    assert "Skills" not in "\n".join(tables.nlu_part({}, {}, {}))


def test_nlu_speed_rows() -> None:
    assert tables_nlu.speed_lines(NLU_SPEED)[2:] == [
        "| lora, against PEFT | 1.20 (0.70–1.70) | 1 | yes |",
        "| P-tuning v2, batches of similar lengths without padding, against random padded batches | 1.20 (0.70–1.70) | 1.3 | no |",
        "",
        "P-tuning v2 on Gemma-3-270M, 8 rows of 256 tokens: peak memory above the idle model 200 MiB, with gradient checkpointing 50 MiB (0.25 of it).",
    ]


def test_serving_rows() -> None:
    assert tables_serving.serve_table(SERVE["cases"])[2:] == ["| Two tasks | two / one | 1.00 (0.90–1.10) | 0.95 | yes |"]
    assert tables_serving.waits_table(SERVE["cases"])[2:] == [
        "| Two tasks | two | 1.00 | 1.50 | 2.00 | 0.10 | 0.20 | 0.40 |",
        "|  | one | 0.50 | 0.50 | 0.50 | 0.10 | 0.10 | 0.10 |",
    ]
    assert tables_serving.operations_table(FACTS)[2:] == ["| a load | 12.5 | at most 20 | yes |", "| beside | 1.2 | – | – |"]
    assert tables_serving.soak_lines(SOAK) == [
        "10 minutes: 1,200 × answered, 3 × left. Memory in the last quarter divided by that in the second quarter: 1.010 (target: at most 1.05).",
        "Failures: 1. The first: one",
    ]


def test_startup_rows() -> None:
    assert tables.startup_table(STARTUP)[1:] == [
        "|---|--:|:-:|",
        "| `foreword --help` | 8.0 (7.5–8.5) | yes |",
        "| `foreword list` | 30.0 (29.5–30.5) | no |",
        "",
        BORN,
    ]


def test_quality_rows_are_means_over_seeds_against_the_best_rate() -> None:
    assert tables.quality_table(quality(RUNS), tuple(METHODS))[2:] == [
        "| p-tuning | Foreword | defaults | – | 0.810 ± 0.010 (0.800–0.820) | 2 |",
        "| p-tuning | PEFT | mlp | 0.001 | 0.750 ± 0.010 (0.750–0.750) | 1 |",
    ]
    assert tables.sweep_table(quality(RUNS))[2:] == [
        "| p-tuning | mlp | 0.0001 | 0.500 ± 0.020 | 0.500 ± 0.010 | 0.500 ± 0.010 |",
        "| p-tuning | mlp | 0.001 | 0.250 ± 0.020 | 0.750 ± 0.010 | 0.750 ± 0.010 |",
        "| p-tuning | mlp | 0.01 | 0.300 ± 0.020 | 0.700 ± 0.010 | 0.700 ± 0.010 |",
        "",
        "Not complete yet: prompt-tuning, prefix-tuning, p-tuning-v2.",
    ]


def test_peft_has_no_row_before_its_sweep_is_complete() -> None:
    assert len(tables.quality_table(quality(RUNS[:-1]), tuple(METHODS))) == 3


def test_fresh_sentences_have_a_table_of_their_own() -> None:
    evaluated = quality([result("foreword", "default", None, 0, 0.7), result("peft", "mlp", 1e-3, 0, 0.6)])
    lines = tables.quality_part(quality(RUNS), evaluated)
    assert lines[lines.index("The same training runs on 1,000 other test sentences (finished runs only):") + 4 :][:2] == [
        "| p-tuning | Foreword | defaults | – | 0.700 ± 0.010 (0.700–0.700) | 1 |",
        "| p-tuning | PEFT | mlp | 0.001 | 0.600 ± 0.010 (0.600–0.600) | 1 |",
    ]
    assert "other test sentences" not in " ".join(tables.quality_part(quality(RUNS), {}))


def test_pages(docs: Path, tmp_path: Path) -> None:
    store.write(tmp_path / "results" / "speed.json", {"cases": {"a case": speed_case("p-tuning")}})
    store.write(tmp_path / "results" / "quality.json", quality(RUNS))
    store.write(tmp_path / "results" / "startup.json", STARTUP)
    store.write(
        tmp_path / "results" / "nlu.json",
        {"setting": {"pos": {"plan": {"steps": 3, "batch_size": 8}}}, "runs": HEADED, "sessions": [BIRTH]},
    )
    store.write(tmp_path / "results" / "nlu_speed.json", NLU_SPEED)
    store.write(tmp_path / "results" / "serve.json", SERVE)
    store.write(tmp_path / "results" / "serve_operations.json", {"facts": FACTS, "provenance": BIRTH})
    store.write(tmp_path / "results" / "serve_burst.json", {"facts": FACTS, "provenance": BIRTH})
    store.write(tmp_path / "results" / "serve_vllm.json", SERVE)
    store.write(tmp_path / "results" / "soak.json", SOAK)
    fresh = tables.pages(tmp_path / "results", docs)
    assert sorted(fresh) == sorted([docs / "results.md", *(docs / "methods" / f"{method}.md" for method in METHODS)])
    assert BORN in fresh[docs / "results.md"]
    assert "Not measured yet" not in fresh[docs / "results.md"]
    page = fresh[docs / "methods" / "p-tuning.md"]
    assert "| a case | 3.10 (2.60–3.60) |" in page and "0.810 ± 0.010" in page and "old" not in page
    assert fresh[docs / "methods" / "prefix-tuning.md"] == f"# prefix-tuning\n\n{tables.START}\n{tables.END}\n\n## Sources\n"


def test_what_was_not_measured_is_said(docs: Path, tmp_path: Path) -> None:
    page = tables.pages(tmp_path / "nothing", docs)[docs / "results.md"]
    assert "Not measured yet; run `python benchmarks/speed.py`." in page
    assert "Not measured yet; run `python benchmarks/quality.py`." in page
    for name in ("startup", "nlu", "nlu_speed", "serve", "serve_operations", "soak", "serve_vllm", "serve_burst"):
        assert f"Not measured yet; run `python benchmarks/{name}.py`." in page


def test_a_page_without_its_marks_is_refused(docs: Path, tmp_path: Path) -> None:
    (docs / "methods" / "p-tuning.md").write_text("# P-tuning\n", "utf-8")
    with pytest.raises(LookupError) as error:
        tables.pages(tmp_path / "nothing", docs)
    assert str(error.value) == "p-tuning.md needs one line '<!-- results:start -->' and, after it, one line '<!-- results:end -->'."
