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


class ForewordError(Exception):
    """Root of all errors that Foreword raises for a user's mistake."""


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
