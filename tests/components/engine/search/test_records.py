"""What an interrupted search goes on with."""

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.search.budget import Budget, Used, check_budget, is_spent
from collabopt.components.engine.search.records import SearchState, check_same_origin, read_state, write_state

ORIGIN = {"space": {"sparsity": [0.5, 0.6]}, "policy": "", "content of the data": "abc"}
STATE = SearchState(origin=ORIGIN, run_id="r", budget=Budget(trials=3, epochs=50))


def test_a_state_is_read_as_it_was_written(tmp_path):
    write_state(STATE, tmp_path / "state.json")
    assert read_state(tmp_path / "state.json") == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    assert read_state(tmp_path / "none.json") is None


def test_a_budget_may_grow():
    check_same_origin(STATE, ORIGIN, Budget(trials=4, epochs=None), "here")


@pytest.mark.parametrize(
    ("origin", "budget", "said"),
    [
        ({**ORIGIN, "space": {"sparsity": [0.5, 0.7]}}, {}, "space: {'sparsity': [0.5, 0.6]} then"),
        ({**ORIGIN, "policy": "goals: []"}, {}, "policy: nothing then, goals: [] now"),
        ({**ORIGIN, "content of the data": "abd"}, {}, "content of the data: abc then, abd now"),
        (ORIGIN, {"trials": 2}, "budget of trials: 3 then, 2 now"),
        (ORIGIN, {"epochs": 20}, "budget of epochs: 50 then, 20 now"),
        (ORIGIN, {"minutes": 5.0}, "budget of minutes: no limit then, 5 now"),
    ],
)
def test_another_search_is_refused_with_what_differs(origin, budget, said):
    with pytest.raises(CollaboptError) as refused:
        check_same_origin(STATE, origin, Budget(**{"trials": 3, "epochs": 50, **budget}), "here")
    assert said in str(refused.value)


def test_a_budget_must_pay_for_the_first_trial():
    check_budget(Budget(epochs=21), 21)
    with pytest.raises(CollaboptError, match="too small for one trial"):
        check_budget(Budget(epochs=20), 21)


@pytest.mark.parametrize(
    ("used", "limit"),
    [({}, ""), ({"trials": 3}, "3 trials"), ({"epochs": 60}, "50 epochs"), ({"minutes": 2.0}, "1.5 minutes")],
)
def test_the_first_limit_that_is_reached_ends_a_search(used, limit):
    assert is_spent(Budget(trials=3, epochs=50, minutes=1.5), Used(**used)) == limit
