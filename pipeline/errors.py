"""Every error a user can cause, one exit code per class.

PipelineError
|-- ConfigError        2  a setting or a command-line value is wrong
|-- InfeasibleBudget   3  no architecture of the space meets the budget
|-- BackendMissing     4  a runtime or device is absent; the hint names the extra to install
|-- StaleArtifact      5  a file is missing, or its hash or schema differs from what was recorded
|-- UnpricedOp         6  the device profile has no price for an operation or a network of this kind
|-- ParityFailed       7  a form of the network differs, loses quality, or does not beat bicubic
|-- BudgetMissed       8  the delivered network exceeds its budget
`-- DataError          9  images are missing, broken or unsuitable
"""


class PipelineError(Exception):
    """A user's mistake: one line that says what is wrong, and a hint that says what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(PipelineError):
    exit_code = 2


class InfeasibleBudget(PipelineError):
    exit_code = 3


class BackendMissing(PipelineError):
    exit_code = 4


class StaleArtifact(PipelineError):
    exit_code = 5


class UnpricedOp(PipelineError):
    exit_code = 6


class ParityFailed(PipelineError):
    exit_code = 7


class BudgetMissed(PipelineError):
    exit_code = 8


class DataError(PipelineError):
    exit_code = 9
