"""Atomic files: they are complete or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from foreword.errors import UsageError


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces `path` when the block ends; after an error or a kill, the earlier file is unchanged.

    Raises UsageError if the file cannot be written.
    """
    path = Path(os.path.realpath(path))  # the file that a link points to, not the link
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BrokenPipeError:  # of a pipe that the block writes to, never of this file
        raise
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written ({error.strerror}); free some space or choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)
