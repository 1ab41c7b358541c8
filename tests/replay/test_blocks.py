"""A block of records becomes lines that do not depend on other boots."""

import orjson
from support.replayed import pipeline

from sessiond.replay.blocks import Block, Filter, Identity, Pipelines
from sessiond.units import SECOND

CWD = 1307
WEB, DB = Identity("web7", "", "", (0, 1)), Identity("db3", "", "", (1, 1))


def block(boot: Identity, *times: int, last: bool = False) -> Block:
    records = [(CWD, b'audit(%d.000:%d): cwd="/"' % (time, time)) for time in times]
    return Block(boot, max(times, default=0) * SECOND, records, [], last)


def numbers(lines: list[bytes]) -> list[int]:
    return [orjson.loads(line)["event"]["sequence"] for line in lines]


def test_the_lines_of_each_block_are_numbered_from_one() -> None:
    """Whoever writes the lines adds the number of those before them."""
    pipelines = Pipelines(pipeline)
    made = [pipelines.take(block(boot, *times)) for times in ((1, 5), (9,)) for boot in (WEB, DB)]
    assert [numbers(each.lines) for each in made] == [[1], [1], [1], [1]]
    assert [each.numbers for each in made] == [1, 1, 1, 1]


def test_the_last_block_ends_a_pipeline() -> None:
    """Events in flight are written, and their number is known."""
    pipelines = Pipelines(pipeline)
    assert pipelines.take(block(WEB, 1)) == ([], 0, 0)
    made = pipelines.take(block(WEB, last=True))
    assert (numbers(made.lines), made.events) == ([1], 1)
    assert pipelines.living == {}


def test_lines_that_are_not_wanted_have_their_number() -> None:
    """The rest keeps its own."""
    pipelines = Pipelines(pipeline, Filter(since="1970-01-01T00:00:05.000000Z"))
    made = pipelines.take(block(WEB, 1, 2, 6, last=True))
    assert (numbers(made.lines), made.numbers) == ([3], 3)
