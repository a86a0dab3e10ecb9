"""Storage of a gallery: its folder, catalog, shards, and records of jobs."""

CATALOG_FILE = "catalog.sqlite"  # by which a gallery's folder is known
