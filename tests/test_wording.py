import pytest

from hashsearch.wording import counted, sized


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1_000_000, "1,000,000 images")],
)
def test_one_is_counted_in_the_singular(number, text):
    assert counted(number, "image") == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1024, "1 kB"),
        (65_536, "64 kB"),
        (100_000, "100 kB"),
        (123_457, "123.46 kB"),
        (2**20, "1 MB"),
        (3 * 2**19, "1.5 MB"),
        (1_500_000, "1.5 MB"),
        (16 * 2**20, "16 MB"),
        (17_000_000, "17 MB"),
        (64_000_000, "64 MB"),
        (1023 * 2**20, "1,023 MB"),
        (2**30, "1 GB"),
        (3 * 10**12, "3,000 GB"),
    ],
)
def test_a_limit_is_written_as_people_write_it(n_bytes, text):
    assert sized(n_bytes) == text
