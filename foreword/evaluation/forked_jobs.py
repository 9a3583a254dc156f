"""The other end of `Processes`: jobs from standard input, one JSON object a line; events and, last, the outcome of each to standard output.

What libraries print there goes to standard error.

Why not multiprocessing's "forkserver" with `set_forkserver_preload`: it starts a job as fast (0.05 s, here 0.04 s) and isolates memory and exit
codes as well, but it is one server for the whole program, while the demo runs one for each task at once; its jobs share the program's process
group, so that Ctrl-C reaches them too, and its standard error, of which the last line is here kept as the reason why a job died; and each job
imports the program's main module again.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from foreword.errors import DivergedError, ForewordError

Event = dict[str, Any]
Tell = Callable[[Event], None]
Do = Callable[[Event, Tell], Event]


def serve(do: Do) -> None:
    """Do jobs until there are no more, each in a fork of this process, which itself never loads a model nor starts a thread."""
    channel = _own_output()

    def tell(event: Event) -> None:
        print(json.dumps(event), file=channel, flush=True)

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _child(line, do, tell)
        tell({"event": "ended", "code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])})


def _child(line: str, do: Do, tell: Tell) -> NoReturn:
    """Do a job and end, without the other process's leave-taking."""
    code = 1
    try:
        tell({"event": "outcome", **outcome(json.loads(line), do, tell)})
        code = 0
    except BaseException:  # whatever it was: this process ends here, and its last words are read
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def outcome(job: Event, do: Do, tell: Tell) -> Event:
    """What came of a job; a user's mistake and a divergence are outcomes."""
    try:
        return {"status": "done", **do(job, tell)}
    except DivergedError as error:
        return {"status": "diverged", "reason": str(error)}
    except ForewordError as error:
        return {"status": "refused", "error": type(error).__name__, "reason": str(error)}


def _own_output() -> TextIO:
    """Standard output for this program alone; whatever else is printed goes to standard error."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel
