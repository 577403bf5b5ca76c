"""Loss Atlas."""

__version__ = "0.9.0"
