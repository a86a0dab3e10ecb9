"""Columns of text."""

from hashsearch.columns import aligned


def test_cells_are_aligned_to_their_sides_without_spaces_at_the_end():
    rows = [("bits", "label", "image"), ("7", "", "a.jpg"), ("10,000", "cat", "")]
    assert aligned(rows, "><<") == [
        "  bits  label  image",
        "     7         a.jpg",
        "10,000  cat",
    ]
    assert aligned(rows[:1], "<<<", gap=" | ") == ["bits | label | image"]
