"""The version of the package: it is written into every stamp."""

__version__ = "0.2.0"
