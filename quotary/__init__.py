"""Quotary: a transparency log and measurement registry for confidential AI inference."""

__version__ = "0.1.0"
