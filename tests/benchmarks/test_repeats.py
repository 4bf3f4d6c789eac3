"""What is timed in turns, and how it is shown."""

from benchmarks.repeats import in_turn, ratios, spread, table


def test_ways_take_turns_after_each_has_warmed_up():
    ran = []
    found = in_turn({name: lambda name=name: ran.append(name) for name in "ab"}, 2)
    assert "".join(ran) == "ababab"
    assert [len(found[name]) for name in "ab"] == [2, 2]
    in_turn({"c": lambda: ran.append("c")}, 1, warm_up=False)
    assert ran[6:] == ["c"]


def test_ratios_are_of_the_same_repeat_and_shown_with_their_spread():
    assert ratios([4.0, 9.0, 1.0], [2.0, 3.0, 1.0]) == [2.0, 3.0, 1.0]
    assert spread([2.0, 3.0, 1.0]) == "2.00 (1.00 to 3.00)"
    assert spread([2_000.4], ",.0f") == "2,000 (2,000 to 2,000)"


def test_a_table_keeps_empty_cells():
    assert table(["", "b"], [["1", ""]]) == "| | b |\n| --- | --- |\n| 1 | |"
