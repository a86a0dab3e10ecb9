"""Words that several places use, or that follow from numbers."""

CONTINUES = "what was committed is safe, and the same command continues"


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 image", "2,000 images", "3 classes"."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{ending}"


def sized(n_bytes: int) -> str:
    """A limit in bytes, as people write it: "16 MB", "1.5 MB", "100 kB", "900 bytes".

    Units are of 1,000 or of 1,024, whichever needs no rounding, or the shorter text.
    """
    texts = []
    for base in (1000, 1024):
        number, unit = _in_units(n_bytes, base)
        text = f"{round(number, 2):,g} {unit}"
        texts.append((round(number, 2) != number, len(text), text))
    return min(texts, key=lambda one: one[:2])[-1]


def _in_units(n_bytes: int, base: int) -> tuple[float, str]:
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if n_bytes >= base**power:
            return n_bytes / base**power, unit
    return n_bytes, "byte" if n_bytes == 1 else "bytes"
