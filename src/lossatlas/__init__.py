"""Loss Atlas."""

__version__ = "0.14.0"
