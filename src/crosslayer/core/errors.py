"""What can go wrong, as one tree. Every message says where, what, and what to do.

CrosslayerError
├── GraphError    a network that is not well formed
├── InputError    a study, file, name or value that the user gave
│   ├── DataError     a data set that is absent or damaged
│   ├── DesignError   a design folder that cannot be read
│   └── ReadError     a network file that cannot be read
├── FitError      a network that the target cannot hold
└── ToolError     a compiler or emulator that is absent or failed
"""


class CrosslayerError(Exception):
    """Base of all errors that crosslayer raises on purpose; the command line prints it and exits with 2."""


class GraphError(CrosslayerError):
    """A network is not well formed, or an operation is used where it has no meaning."""


class InputError(CrosslayerError):
    """Something the user gave cannot be used."""


class DataError(InputError):
    """A data set is absent or damaged."""


class DesignError(InputError):
    """A design folder cannot be read."""


class ReadError(InputError):
    """A file of another framework is damaged, or holds what crosslayer has no operation for."""


class FitError(CrosslayerError):
    """The target cannot hold the network."""


class ToolError(CrosslayerError):
    """A compiler, emulator or optional package is absent or failed."""
