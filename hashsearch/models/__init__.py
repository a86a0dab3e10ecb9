"""Autoencoders: their architectures, and the folders they are kept in."""
