"""Nearest codes: FAISS behind one small interface."""
