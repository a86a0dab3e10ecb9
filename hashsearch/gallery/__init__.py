"""Storage of a gallery: its folder, catalog, shards, and records of jobs."""
