"""The results file of a comparison: written atomically after every run, so that the comparison can be stopped at any time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from foreword.errors import UsageError
from foreword.evaluation.atomic_file import atomic_file

Row = dict[str, Any]
FILE, FORMAT = "compare.json", 1
_SHOWN = 60  # characters of a value in a message


@final
class Results:
    """Rows kept in `compare.json` of a folder, all of one setting."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; raises UsageError for a folder that cannot be made or a file that is no results file."""
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"folder '{folder}' cannot be made ({error.strerror}); choose another --out.") from error
        self._document = self._read()

    @property
    def rows(self) -> list[Row]:
        return list(self._document["rows"])

    def bind(self, setting: Mapping[str, Any]) -> None:
        """Set the facts that all rows share; raises UsageError naming the first one in which existing rows differ."""
        setting = json.loads(json.dumps(setting))
        found = self._document["setting"]
        if not self._document["rows"]:
            self._document["setting"] = setting
            return
        for name in sorted({*found, *setting}, key=[*setting, *found].index):
            if found.get(name) != setting.get(name):
                raise UsageError(
                    f"'{self.path}' holds runs of another setting ({name}: {_short(found.get(name))}, now {_short(setting.get(name))}); "
                    "repeat the options of those runs, or give another --out."
                )

    def keep(self, row: Row, same: Mapping[str, Any]) -> None:
        """Save a row at once; it replaces an earlier one with the same values of `same`."""
        self._document["rows"] = [old for old in self._document["rows"] if any(old[key] != value for key, value in same.items())] + [row]
        with atomic_file(self.path) as file:
            file.write(json.dumps(self._document, indent=1, ensure_ascii=False, allow_nan=False).encode())

    def _read(self) -> dict[str, Any]:
        wrong = UsageError(f"'{self.path}' is not a results file of a comparison; give another --out, or move it away.")
        try:
            found = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return {"format": FORMAT, "setting": {}, "rows": []}
        except (OSError, ValueError) as error:
            raise wrong from error
        if not isinstance(found, dict) or not {"format", "setting", "rows"} <= set(found):
            raise wrong
        if found["format"] != FORMAT:
            raise UsageError(f"'{self.path}' has format {found['format']}, but this version reads {FORMAT}; give another --out.")
        return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
