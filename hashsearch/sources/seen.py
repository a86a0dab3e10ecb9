"""Names met before, in memory that does not grow with them."""

import sqlite3

_MOST_IN_MEMORY = 2**17  # hashes; some 12 MB


class SeenNames:
    """A set of names, kept as 8-byte hashes: the last ones in memory, the rest on disk."""

    def __init__(self) -> None:
        # "" is a database in a temporary file, gone when it is closed.
        self._disk = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._disk.execute("PRAGMA journal_mode = OFF")
        self._disk.execute("CREATE TABLE seen (hash INTEGER PRIMARY KEY)")
        self._spilled = False
        self._last: set[int] = set()

    def __contains__(self, name: str | bytes) -> bool:
        key = hash(name)
        return key in self._last or (self._spilled and self._is_on_disk(key))

    def add(self, name: str | bytes) -> bool:
        """Add a name; whether it was not in yet."""
        if name in self:
            return False
        self._last.add(hash(name))
        if len(self._last) == _MOST_IN_MEMORY:
            self._disk.execute("BEGIN")
            # Sorted, they touch each page of the table once.
            rows = ((key,) for key in sorted(self._last))
            self._disk.executemany("INSERT INTO seen VALUES (?)", rows)
            self._disk.execute("COMMIT")
            self._last.clear()
            self._spilled = True
        return True

    def close(self) -> None:
        self._disk.close()

    def _is_on_disk(self, key: int) -> bool:
        query = "SELECT 1 FROM seen WHERE hash = ?"
        return self._disk.execute(query, (key,)).fetchone() is not None
