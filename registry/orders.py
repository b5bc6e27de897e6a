"""Orders of the log's roots, as the registry meets them (docs/formats/orders.md).

The operator lets an order wait with the statements (``quotary registry order log``); the sequencer believes
nobody's database row and checks the roots' signatures itself.
"""

from collections.abc import Iterable

from quotary.errors import Malformed, Rejected
from quotary.statements.delegation import Delegation
from quotary.statements.order import ORDER_TYPES, Order, check_order
from quotary.statements.predicates import LOG_SERVICE
from quotary.statements.state_entry import END_TYPES, reserved_type, state_of
from registry.store import Head, Reader, States, Waiting


def split(waiting: Iterable[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
    """Part what waits into statements and orders."""
    statements: list[Waiting] = []
    orders: list[Waiting] = []
    for row in waiting:
        (orders if reserved_type(row.data) in ORDER_TYPES else statements).append(row)
    return statements, orders


def check(read: Reader, origin: str, entry: bytes, ts: int) -> Order:
    """Give an order that the log's roots, as they are in force now, gave at log time ``ts``.

    Raises ``Malformed``, and ``Rejected`` where it is not theirs.
    """
    order = Order.parse(entry)
    check_order(order, origin, _roots(read), ts)
    return order


def ended(read: Reader, head: Head | None) -> str | None:
    """Say by which order the log has ended; None for a log that goes on."""
    if head is None or head.state_index < 0 or head.state_index != head.size - 1:
        return None
    state = state_of(read.entries(head.state_index, head.size)[0])
    return None if state is None else state.end


def ending(read: Reader, origin: str, entry: bytes, ts: int) -> str | None:
    """Give the type of an order of the roots that will end the log; None for every other entry."""
    if reserved_type(entry) not in END_TYPES:
        return None
    try:
        return check(read, origin, entry, ts).kind
    except (Malformed, Rejected):
        return None


def _roots(read: Reader) -> Delegation | None:
    head = read.head()
    held = States(read).at(head.size).held(LOG_SERVICE) if head else None
    return held.delegation if held else None
