"""Whether a grammar can be compiled in bounded time and memory: tried in a process of its own, as nothing stops a compiler in a thread."""

from __future__ import annotations

import subprocess
import sys

from foreword.errors import UsageError

CPU_SECONDS = 2
WALL_SECONDS = 60  # where the machine is busy, or has no limit on a process's own time
MEMORY_BYTES = 2 << 30

# Compiles the grammar on standard input for a tokenizer of bytes, as the time does not depend on the tokenizer.
_PROGRAM = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]),) * 2)
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
except (ImportError, OSError, ValueError):  # a system without these limits
    pass
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

class Bytes:
    eos_token_id, bos_token_id = 256, None
    tokens, special_token_ids = [bytes([byte]) for byte in range(256)] + [b"<eos>"], [256]

    def __call__(self, text):
        return list(text)

grammar = sys.stdin.buffer.read().decode()
LLMatcher(LLTokenizer(TokenizerWrapper(Bytes())), grammar, log_level=0, limits=LLParserLimits(initial_lexer_fuel=int(sys.argv[3]))).compute_bitmask()
"""


def check_compiles(grammar: str, name: str, lexer_fuel: int) -> None:
    """Raise UsageError for a grammar that takes too long to compile. Others that are wrong are left to the compiler itself. Takes a few tenths of a second."""
    limits = [str(number) for number in (CPU_SECONDS, MEMORY_BYTES, lexer_fuel)]
    command = [sys.executable, "-P", "-c", _PROGRAM, *limits]
    try:
        status = subprocess.run(command, input=grammar.encode(), capture_output=True, timeout=WALL_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        status = -1
    if status < 0:  # killed
        raise UsageError(f"{name} takes too long to compile; simplify the {'schema' if name == 'json_schema' else name}.")
