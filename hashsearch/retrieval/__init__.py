"""Ranked answers from a gallery."""
