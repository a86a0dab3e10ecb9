"""Where copies of parts are, and which of them answers, on layouts that were worked by hand."""

from collections import Counter

import pytest

from hashsearch.distributed.placing import first_nodes, in_turn


def test_copies_of_a_part_are_on_different_nodes_and_each_node_holds_as_many():
    assert first_nodes(4, 2, "ABC") == [["A", "B"], ["B", "C"], ["C", "A"], ["A", "B"]]
    assert first_nodes(3, 1, "ABC") == [["A"], ["B"], ["C"]]
    assert first_nodes(2, 2, "ABCD") == [["A", "C"], ["B", "D"]]


def test_copies_share_nodes_where_there_are_fewer_nodes_than_copies():
    assert first_nodes(2, 3, "AB") == [["A", "B", "A"], ["B", "A", "B"]]
    assert first_nodes(1, 2, "A") == [["A", "A"]]


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("copies", range(1, 4))
def test_each_request_asks_every_node_for_as_many_parts(count, copies):
    nodes = [f"node {number}" for number in range(count)]
    placed = first_nodes(2 * count, copies, nodes)
    for turn in range(6):
        asked = Counter(in_turn(part, turn) for part in placed)
        assert asked == dict.fromkeys(nodes, 2)


def test_the_copies_of_a_part_take_turns():
    assert [in_turn("AB", turn) for turn in range(4)] == ["A", "B", "A", "B"]
    assert in_turn("B", 4) == "B"
    assert in_turn("", 4) is None
