"""Search, fold, export and verify super-resolution networks under a device budget."""

__version__ = "0.1.0"
