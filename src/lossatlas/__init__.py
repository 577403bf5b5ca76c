"""Loss Atlas."""

__version__ = "0.25.0"
