"""Loss Atlas."""

__version__ = "0.16.0"
