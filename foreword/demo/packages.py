"""Data files inside installed packages, found without importing them: some read megabytes, print, or need more packages at import."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from foreword.errors import UsageError


def package_path(package: str, *parts: str) -> Path:
    """The file or folder `parts` inside an installed top-level package.

    Raises UsageError when the package is missing or holds no such file.
    """
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    for folder in folders:
        path = Path(folder, *parts)
        if path.exists():
            return path
    raise UsageError(f"the demo needs '{'/'.join((package, *parts))}', which is not installed; run: pip install \"foreword[demo]\".")
