"""Handing a gallery's codes to files and databases of other programs."""
