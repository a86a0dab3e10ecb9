"""Where copies of parts are, and which of them answers, on layouts that were worked by hand."""

from collections import Counter

import pytest

from hashsearch.distributed.placing import first_nodes, in_turn, next_node


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


@pytest.mark.parametrize(
    ("own", "others", "alive", "held", "failures", "wanted"),
    [
        ("A", "", "ABC", {"A": 5}, {}, "A"),  # its process ended; a node in order keeps it
        ("A", "B", "ABC", {"B": 1}, {"A": 1}, "C"),  # its node fell silent
        ("A", "B", "BC", {"B": 1, "C": 9}, {}, "C"),  # its node is gone
        ("A", "B", "BCDE", {"C": 2, "D": 1, "E": 2}, {}, "D"),  # the node that holds least
        ("A", "B", "BCD", {"D": 1}, {"C": 1}, "D"),  # one failed it before
        ("A", "", "AB", {}, {"A": 2, "B": 1}, "B"),  # all failed it; one less often
        ("A", "B", "B", {"B": 1}, {}, None),  # the other copy is on the only node that is left
        ("A", "B", "BD", {"B": 1}, {}, "D"),  # until another one joins
        ("A", "B", "AB", {}, {"A": 7}, "A"),  # and a failed node is tried again meanwhile
        ("A", "A", "A", {"A": 1}, {}, "A"),  # copies that share their only node since the start
        ("A", "", "", {}, {}, None),
    ],
)
def test_a_lost_copy_stays_or_moves_but_never_to_a_node_with_another_copy_of_its_part(
    own, others, alive, held, failures, wanted
):
    assert next_node(own, others, alive, held, failures) == wanted


def test_copies_of_a_node_that_is_gone_spread_over_the_others():
    placed = first_nodes(8, 2, "ABCD")
    for part in placed:
        for copy, node in enumerate(part):
            if node == "D":
                held = Counter(node for one in placed for node in one if node != "D")
                part[copy] = next_node("D", [one for one in part if one != "D"], "ABC", held, {})
    assert all(len(set(part)) == 2 for part in placed)
    assert sorted(Counter(node for part in placed for node in part).values()) == [5, 5, 6]
