"""All errors that a user can cause: callers catch a subclass, commands print one sentence.

    ForewordError
    ├── UsageError        an option, a name or a combination of options that is not valid
    ├── DataError         examples: missing columns, empty files, unknown labels, too long
    │   └── TemplateError     a template that cannot be read or filled
    ├── ModelError        a base model: unknown family, refused family, wrong checkpoint
    ├── AdapterError      an adapter folder: broken, foreign, unreadable, already there
    │   └── FingerprintError  the adapter was trained on another base or tokenizer
    ├── TrainingError     a run that cannot go on
    │   └── DivergedError     the loss stopped being a number
    └── ServingError      a request that a server cannot take now
        └── CapacityError     insufficient capacity at present

A message is one sentence that says what came, what was expected and what to do.
"""

from __future__ import annotations


class ForewordError(Exception):
    """Root of all errors that Foreword raises for a user's mistake.

    `option` is a switch that would help, such as `truncate`. The command line, which `str` is for, and a request each name it in their own way.
    """

    def __init__(self, message: str = "", *, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option

    def __str__(self) -> str:
        return self._advising("or pass --{}.")

    @property
    def request_message(self) -> str:
        """The message for the sender of a request, who knows its fields and no command line."""
        return self._advising("or set `{}` to true.")

    def _advising(self, advice: str) -> str:
        message = super().__str__()
        return message if self.option is None else f"{message.removesuffix('.')}, {advice.format(self.option)}"


class UsageError(ForewordError):
    """An option, a name or a combination that is not valid."""


class DataError(ForewordError):
    """Examples that cannot be used as they are."""


class TemplateError(DataError):
    """A template that cannot be read, or filled from an example."""


class ModelError(ForewordError):
    """A base model that cannot be loaded or cannot keep the laws."""


class AdapterError(ForewordError):
    """An adapter folder that cannot be read or written."""


class FingerprintError(AdapterError):
    """An adapter for another base model or tokenizer."""


class TrainingError(ForewordError):
    """A training run that cannot continue."""


class DivergedError(TrainingError):
    """The loss is no longer a finite number."""


class ServingError(ForewordError):
    """A request that an engine cannot accept."""


class CapacityError(ServingError):
    """Insufficient capacity at present: the same request may succeed later."""
