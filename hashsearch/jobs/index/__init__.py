"""The indexing job: read, prepare, encode, store."""
