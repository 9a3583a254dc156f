"""A server under load and random faults for some minutes: nothing lost, nothing wrong, memory flat. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import models
import serve_work as work
import soak_faults as faults
import store
from provenance import provenance

from foreword.adapters.adapter import Adapter
from foreword.adapters.folder import FILES
from foreword.backbone.loading.load_model import wrap
from foreword.demo.gemma import prepare

TEXTS = ("a joy to watch from the first minute to the last", "rain is expected in the north", "the bank raised its rate again", "two goals")
TASKS, TOKENS, BASE = 12, 8, "base"
FLAT = 1.05  # memory in the last quarter against the second quarter; the first one fills caches
HEALTHY = 10.0  # seconds for the server's health under this load; it stood still for 43 before bodies were bounded
LONG = " ".join(TEXTS) * 40


@dataclass
class Findings:
    """What happened, counted; `wrong` holds what must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            with self.lock:
                self.wrong.append(what)


class Soak:
    """One server process and the threads that trouble it."""

    def __init__(self, url: str, pid: int, shop: Path, spare: Path, seed: int) -> None:
        self.host, self.pid, self.shop, self.spare, self.seed = urlsplit(url).netloc, pid, shop, spare, seed
        self.findings, self.stop, self.expected = Findings(), threading.Event(), dict[tuple[str, str], set[str]]()

    def ask(self, path: str, body: object) -> tuple[int, Any]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, timeout=120)
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request("POST", path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def text_of(self, task: str, text: str) -> str:
        status, found = self.ask("/v1/completions", {"model": task, "prompt": text, "max_tokens": TOKENS})
        if status != 200:
            raise RuntimeError(f"{status}: {found}")
        return found["choices"][0]["text"]

    def learn(self) -> None:
        """What both versions of each task answer, asked one at a time on a quiet server."""
        for version in ("old", "new"):
            for number in range(TASKS):
                task = f"t{number}"
                self.replace(task, version)
                self.ask("/v1/tasks/load", {"name": task})
                for text in TEXTS:
                    self.expected.setdefault((task, text), set()).add(self.text_of(task, text))

    def replace(self, task: str, version: str) -> None:
        """Put another version of a task into the store."""
        Adapter.load(self.spare / version / task).save(self.shop / task, overwrite=True)

    def asker(self, drawn: random.Random) -> None:
        """A client with manners: every answer must come, and be that of one version of its task."""
        task, text = f"t{drawn.randrange(TASKS)}", drawn.choice(TEXTS)
        found = self.text_of(task, text)
        self.findings.expect(found in self.expected[task, text], f"task {task} answered {found!r} to {text!r}")
        self.findings.count("answered")

    def leaver(self, drawn: random.Random) -> None:
        """A client that goes away in the middle of a stream, or reads slowly."""
        connection = http.client.HTTPConnection(self.host, timeout=120)
        body = {"model": f"t{drawn.randrange(TASKS)}", "prompt": drawn.choice(TEXTS), "max_tokens": 200, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        self.findings.expect(response.status == 200, f"a stream began with {response.status}")
        for _ in range(drawn.randrange(1, 6)):
            response.readline()
            if drawn.random() < 0.3:
                self.stop.wait(0.2)
        connection.close()
        self.findings.count("left in mid-stream")

    def spoiler(self, drawn: random.Random) -> None:
        """Bodies that are wrong, names that do not exist, one body that is far too large."""
        path = drawn.choice(("/v1/completions", "/v1/chat/completions", "/v1/batch", "/v1/classify", "/v1/tasks/load"))
        body = b"x" * (6 << 20) if drawn.random() < 0.02 else drawn.choice(faults.MALFORMED)
        try:
            status, found = self.ask(path, body)
            self.findings.expect(400 <= status < 500 and "error" in found, f"{path} with {body[:40]!r} gave {status}")
        except (BrokenPipeError, ConnectionResetError):
            pass  # a body that is too large is not read to its end
        self.findings.count("malformed")
        self.stop.wait(0.05)

    def giant(self, drawn: random.Random) -> None:
        """Bodies of a million values; the server's health is asked for meanwhile."""
        path, body = faults.million_items(drawn)
        status, _ = self.ask(path, body)
        self.findings.expect(status in (400, 413), f"{path} with a million items gave {status}")
        self.findings.count("million-item body")
        self.stop.wait(2)

    def prober(self, drawn: random.Random) -> None:
        """Somebody who asks whether the server is alive."""
        began = time.monotonic()
        with urlopen(f"http://{self.host}/health", timeout=120) as response:
            response.read()
        seconds = time.monotonic() - began
        self.findings.expect(seconds < HEALTHY, f"/health took {seconds:.1f} s")
        self.findings.count("health")
        self.stop.wait(0.2)

    def sampler(self, drawn: random.Random) -> None:
        """Sampling fields that leave no distribution, and token ids that do not exist: the caller's own mistake."""
        body = faults.odd_request(drawn, f"t{drawn.randrange(TASKS)}", BASE, drawn.choice(TEXTS))
        status, found = self.ask("/v1/completions", body)
        self.findings.expect(status in (200, 400), f"{str(body)[:200]} gave {status}: {str(found)[:200]}")
        self.findings.count("odd sampling")
        self.stop.wait(0.2)

    def canceller(self, drawn: random.Random) -> None:
        """A client with a long prompt that goes away before its first token."""
        body = {
            "model": f"t{drawn.randrange(TASKS)}",
            "prompt": f"{drawn.random()} {LONG}",
            "max_tokens": 50,
            "stream": drawn.random() < 0.5,
        }
        connection = http.client.HTTPConnection(self.host, timeout=120)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        self.stop.wait(drawn.random())
        connection.close()
        self.findings.count("cancelled long prompt")
        self.stop.wait(1)

    def operator(self, drawn: random.Random) -> None:
        """Somebody who replaces, breaks, loads and unloads tasks."""
        task = f"t{drawn.randrange(TASKS)}"
        what = drawn.choice(("replace", "replace", "unload", "load", "break", "odd folder"))
        if what == "replace":
            self.replace(task, drawn.choice(("old", "new")))
        elif what in ("break", "odd folder"):
            aside, folder = self.spare / "broken", self.shop / "broken"
            shutil.copytree(self.spare / "old" / task, aside)
            if what == "break":
                path = aside / drawn.choice(FILES)
                path.write_bytes(path.read_bytes()[: drawn.randrange(200)])
            else:
                faults.make_odd(drawn, aside)
            aside.rename(folder)  # never whole where the server looks
            status, _ = self.ask("/v1/completions", {"model": "broken", "prompt": "x"})
            usable = (200,) if what == "odd folder" else ()  # where what was changed says nothing that is needed
            self.findings.expect(400 <= status < 500 or status in usable, f"a broken adapter gave {status}")
            self.stop.wait(1)  # the server looks for new ones
            shutil.rmtree(folder)
        else:
            status, found = self.ask(f"/v1/tasks/{what}", {"name": task})
            self.findings.expect(status == 200, f"{what} of {task} gave {status}: {found}")
        self.findings.count(what)
        self.stop.wait(0.5)

    def watcher(self, drawn: random.Random) -> None:
        """The server's memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        self.findings.memory.append((time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
        self.stop.wait(2)

    def run(self, minutes: float, askers: int) -> None:
        """All of them at once, for so long."""
        roles = [self.asker] * askers + [self.leaver, self.leaver, self.spoiler, self.giant, self.sampler, self.canceller]
        roles += [self.operator, self.prober, self.watcher]
        threads = [threading.Thread(target=self._loop, args=(role, random.Random(f"{self.seed} {i}"))) for i, role in enumerate(roles)]
        for thread in threads:
            thread.start()
        self.stop.wait(60 * minutes)
        self.stop.set()
        for thread in threads:
            thread.join()

    def _loop(self, role: Callable[[random.Random], None], drawn: random.Random) -> None:
        while not self.stop.is_set():
            try:
                role(drawn)
            except Exception as error:  # whatever a client meets is a fault of the run, counted and shown at its end
                self.findings.expect(False, f"{role.__name__}: {type(error).__name__}: {error}")
                self.stop.wait(1)


def start(shop: Path, source: str) -> tuple[subprocess.Popen[str], str]:
    """A server over the store, in fp32, where an answer does not depend on its company; memory for a few of its tasks only."""
    words = ["serve", shop, "--model", source, "--port", "0", "--dtype", "float32", "--memory", "96", "--watch", "0.5"]
    command = [sys.executable, "-m", "foreword", *map(str, words), "--max-sequences", "16", "--model-name", BASE]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r" at (http://\S+)", line):
            threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True).start()
            return process, found[1]
    raise SystemExit("the server did not start.")


def report(soak: Soak, code: int) -> dict[str, Any]:
    sizes = [size for _, size in soak.findings.memory]
    quarter = max(1, len(sizes) // 4)
    early, late = statistics.median(sizes[quarter : 2 * quarter] or sizes), statistics.median(sizes[-quarter:])
    soak.findings.expect(late <= FLAT * early, f"memory grew from {early:.0f} to {late:.0f} MB")
    soak.findings.expect(code == 0, f"the server ended with {code}")
    return {
        "counts": dict(sorted(soak.findings.counts.items())),
        "texts_whose_versions_differ": f"{sum(len(answers) > 1 for answers in soak.expected.values())} of {len(soak.expected)}",
        "memory": {"second_quarter_mb": round(early, 1), "last_quarter_mb": round(late, 1), "ratio": round(late / early, 4), "asked": FLAT},
        "wrong": soak.findings.wrong,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/soak.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--askers", type=int, default=6, help="clients that wait for whole answers (default 6)")
    parser.add_argument("--seed", type=int, default=0, help="draws the faults (default 0)")
    parser.add_argument("--out", type=Path, default=store.RESULTS / "soak.json", help="results file")
    args = parser.parse_args(argv)
    birth, source = provenance([args.seed], len(os.sched_getaffinity(0))), str(prepare())
    with tempfile.TemporaryDirectory() as folder:
        shop, spare = Path(folder, "store"), Path(folder, "spare")
        model = wrap(models.network(source).float(), models.tokenizer(source), name="gemma-3-270m")
        for place, first in ((spare / "old", 0), (spare / "new", 100)):
            work.tasks(place, model, TASKS, "p-tuning-v2", work.PREFIX, first=first, noise=0.5)  # so that versions answer differently
        shutil.copytree(spare / "old", shop)
        del model
        process, url = start(shop, source)
        try:
            soak = Soak(url, process.pid, shop, spare, args.seed)
            soak.learn()
            soak.run(args.minutes, args.askers)
            process.send_signal(signal.SIGTERM)
            found = report(soak, process.wait(60))
        finally:
            process.kill()
    store.write(args.out, {"minutes": args.minutes, **found, "provenance": birth})
    print(json.dumps({key: found[key] for key in ("counts", "memory")}))
    if found["wrong"]:
        raise SystemExit("\n".join([f"{len(found['wrong'])} things went wrong:", *found["wrong"][:20]]))


if __name__ == "__main__":
    main()
