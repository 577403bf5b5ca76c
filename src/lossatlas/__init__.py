"""Loss Atlas."""

__version__ = "0.24.0"
