import pytest

from hashsearch.wording import counted


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1_000_000, "1,000,000 images")],
)
def test_one_is_counted_in_the_singular(number, text):
    assert counted(number, "image") == text
