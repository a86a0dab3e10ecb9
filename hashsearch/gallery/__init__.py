"""Galleries: the searched collection on disk, and the job that fills it."""
