"""What Optuna proposes, and that an interruption changes none of it."""

import statistics

import pytest

from collabopt.components.engine.search.objectives import Objective
from collabopt.components.engine.search.space import parse_space
from collabopt.components.engine.search.study import Study, Told

SPACE = parse_space("sparsity: [0.5, 0.6, 0.8]\nclusters: [8, 16, 32]\n")
OBJECTIVES = (Objective("accuracy", True), Objective("packed_bytes", False))
DEFAULT = {"sparsity": 0.5, "clusters": 16}


@pytest.fixture
def study(tmp_path):
    """Opens the study of this test, each time anew, as another process would."""
    return lambda seed=0, space=SPACE, file="study.db": Study(tmp_path / file, space, OBJECTIVES, seed)


def answer(study, trial):
    sparsity, clusters = trial.configuration["sparsity"], trial.configuration["clusters"]
    study.tell(trial, Told([1 - sparsity / 5, 1000 * clusters / sparsity], [max(0.0, sparsity - 0.7)]))


def run(study, count):
    study.begin(DEFAULT)
    for _ in range(count):
        for trial in study.trials():
            if not trial.answered:
                answer(study, trial)
        study.propose()
    return [trial.configuration for trial in study.trials()]


def test_the_first_trial_is_the_default_configuration(study):
    opened = study()
    opened.begin(DEFAULT)
    assert [(trial.number, trial.configuration, trial.answered) for trial in opened.trials()] == [(0, DEFAULT, False)]


def test_the_default_comes_first_even_where_the_space_does_not_hold_it(study):
    opened = study()
    opened.begin({"sparsity": 0.3, "clusters": 5})
    assert opened.trials()[0].configuration == {"sparsity": 0.3, "clusters": 5}
    opened.tell(opened.trials()[0], Told([0.9, 100.0], [0.0]))
    assert opened.propose() and SPACE.holds(opened.trials()[1].configuration)


@pytest.mark.parametrize("default", [DEFAULT, {"sparsity": 0.3, "clusters": 5}], ids=["inside", "outside"])
def test_axes_are_sampled_together_wherever_the_default_lies(study, tmp_path, default):
    import optuna

    opened = study()
    opened.begin(default)
    for _ in range(3):
        for trial in opened.trials():
            if not trial.answered:
                answer(opened, trial)
        opened.propose()
    kept = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert set(optuna.search_space.intersection_search_space(kept.get_trials())) == {"sparsity", "clusters"}
    assert opened.trials()[0].answered


def test_no_configuration_is_proposed_twice_and_a_space_of_lists_is_exhausted(study):
    proposed = run(study(), 12)
    assert len(proposed) == 9
    assert all(point in proposed for point in SPACE.points())
    assert study().propose() is False


def test_what_does_not_fit_now_is_passed_over_and_may_come_later(study):
    opened = study()
    opened.begin(DEFAULT)
    wanted = SPACE.points()[-1]["clusters"]
    for _ in range(3):
        opened.propose(lambda configuration: configuration["clusters"] == wanted)
    proposed = [trial.configuration for trial in opened.trials()[1:]]
    assert proposed and all(configuration["clusters"] == wanted for configuration in proposed)
    assert opened.propose(lambda _: False) is False
    while opened.propose():
        pass
    assert len(opened.trials()) == 9


def test_an_interruption_changes_no_proposal(study):
    whole = run(study(file="whole.db"), 5)
    opened = study()
    opened.begin(DEFAULT)
    for _ in range(5):
        for trial in study().trials():
            if not trial.answered:
                answer(study(), trial)
        study().propose()
    assert [trial.configuration for trial in study().trials()] == whole


@pytest.fixture
def killed(tmp_path):
    """The database that a process leaves which is killed while it proposes."""
    import optuna

    def leave(change):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        change(optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'study.db'}"))

    return leave


@pytest.mark.parametrize("trials_before", [0, 3])
@pytest.mark.parametrize(
    "left", [lambda study, queued: study.enqueue_trial(queued), lambda study, _: study.ask()], ids=["queued", "asked"]
)
def test_killed_while_it_proposed_it_proposes_the_same(study, killed, trials_before, left):
    whole = run(study(file="whole.db"), 6)
    queued = whole[trials_before]
    before = study()
    if trials_before:
        assert run(before, trials_before - 1) == whole[:trials_before]
        for trial in before.trials():
            if not trial.answered:
                answer(before, trial)
    killed(lambda study: left(study, queued))
    again = study()
    if not again.trials():
        again.begin(DEFAULT)
    while len(again.trials()) < len(whole):
        for trial in again.trials():
            if not trial.answered:
                answer(again, trial)
        again.propose()
    assert [trial.configuration for trial in again.trials()] == whole


def test_killed_between_queueing_and_asking_for_the_default_it_is_first(study, killed):
    study()
    killed(lambda study: study.enqueue_trial(DEFAULT))
    opened = study()
    opened.begin(DEFAULT)
    assert [trial.configuration for trial in opened.trials()] == [DEFAULT]


def test_a_space_with_steps_is_exhausted_only_when_nothing_is_left(study):
    space = parse_space("clusters: {low: 8, high: 32, step: 8}\nsparsity: {low: 0.5, high: 0.8, step: 0.1}\n")
    opened = study(space=space)
    opened.begin(DEFAULT)
    while opened.propose():
        for trial in opened.trials():
            if not trial.answered:
                answer(opened, trial)
    proposed = [trial.configuration for trial in opened.trials()]
    assert len(proposed) == 16 and all(point in proposed for point in space.points())


def test_another_seed_proposes_otherwise(study):
    assert run(study(file="one.db"), 5) != run(study(seed=1, file="other.db"), 5)


def test_what_was_answered_stays_answered(study):
    opened = study()
    opened.begin(DEFAULT)
    answer(opened, opened.trials()[0])
    answer(study(), study().trials()[0])
    assert study().trials()[0].answered


def test_ranges_are_kept_to(study):
    space = parse_space("clusters: {low: 8, high: 32, step: 8}\nlearning_rate: {low: 0.0001, high: 0.01, log: true}\n")
    opened = study(space=space)
    opened.begin({"clusters": 16, "learning_rate": 0.001})
    for _ in range(6):
        assert opened.propose()
    proposed = [trial.configuration for trial in opened.trials()]
    assert all(space.holds(each) for each in proposed)
    assert all(type(each["clusters"]) is int for each in proposed)


LINE = parse_space("sparsity: {low: 0.1, high: 0.9}\n")


def proposed_sparsities(study, file, answer_to, answered=24, asked=8):
    """What is proposed, without an answer in between, once so many proposals have been answered."""
    opened = study(space=LINE, file=file)
    opened.begin({"sparsity": 0.5})
    while len(opened.trials()) < answered:
        opened.propose()
        for trial in opened.trials():
            if not trial.answered:
                opened.tell(trial, answer_to(trial.configuration["sparsity"]))
    for _ in range(asked):
        opened.propose()
    return [trial.configuration["sparsity"] for trial in opened.trials()[answered:]]


def test_proposals_keep_to_where_the_goals_are_met(study):
    """Both objectives say: as sparse as can be; a goal says: not above 0.5."""
    free = proposed_sparsities(study, "free.db", lambda sparsity: Told([sparsity, -sparsity], [0.0]))
    bound = proposed_sparsities(
        study, "bound.db", lambda sparsity: Told([sparsity, -sparsity], [max(0.0, sparsity - 0.5)])
    )
    assert statistics.mean(bound) < 0.5 < 0.6 < statistics.mean(free)


def test_proposals_of_one_wave_keep_apart(study):
    """The best is known well, and the first of the wave is there: the others are not all beside it."""
    wave = proposed_sparsities(
        study, "wave.db", lambda sparsity: Told([-abs(sparsity - 0.3), abs(sparsity - 0.3)], [0.0])
    )
    assert max(wave) - min(wave) > 0.2
