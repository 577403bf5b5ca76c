"""Loss Atlas."""

__version__ = "0.11.0"
