"""Changes over changes: taken over at once they say what they say when they are made one after the other."""

from quotary.statements.f1 import F1
from quotary.statements.opened import open_entry
from quotary.statements.state import State
from tests.fakes.authority import ORIGIN, SERVICE, TS, Authority, measurement

OTHER = "other/service"


def test_later_changes_added_to_earlier_ones_are_those_of_both() -> None:
    made = Authority()
    first = [made.genesis()]
    for service in (SERVICE, OTHER):
        first += [made.allocation(service), made.delegation(service=service)]
    first.append(made.release("a"))
    later = [
        made.release("a", "b", service=OTHER),
        made.revocation(["b"], service="log", signers=("security1",)),
    ]
    later += [made.delegation(), made.release("c")]
    state, both = State(), State()
    for index, entry in enumerate(first):
        for known in (state, both):
            assert F1(ORIGIN, known, index).admit(open_entry(entry), TS).effect
    trial = State(state)
    for index, entry in enumerate(later, len(first)):
        for known in (trial, both):
            assert F1(ORIGIN, known, index).admit(open_entry(entry), TS).effect
    assert state.new != both.new
    state.new.add(trial.new)
    assert state.new == both.new
    assert set(state.holders(measurement("a"))) == {SERVICE, OTHER}
    assert state.denial(measurement("b")) is not None
