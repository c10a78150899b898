from pathlib import Path

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines.output_directory import LEAF_FILES, OutputDirectory, check_output, open_output


def make_result(work: Path, content: str, stages: tuple[str, ...] = ("ptq",)) -> tuple[dict[str, Path], Path]:
    leaves = {stage: work / "root" / stage for stage in stages}
    for directory in leaves.values():
        directory.mkdir(parents=True)
        for name in (*LEAF_FILES, "training_curve.csv"):
            (directory / name).write_text(content)
    decision = work / "root" / "decision.json"
    # A model card comes with a winner only.
    for name in (
        "decision.json",
        "report.html",
        *(["model_card.md", "search.json"] if content == "first" else ["sample.npz"]),
    ):
        (work / "root" / name).write_text(content)
    return leaves, decision


def publish(directory: Path, content: str, stages: tuple[str, ...] = ("ptq",)) -> None:
    with open_output(directory) as output:
        output.publish(*make_result(output.work, content, stages))


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_result_replaces_the_earlier_one_as_a_whole(tmp_path: Path):
    publish(tmp_path, "first", ("ptq", "qat"))
    publish(tmp_path, "second")
    assert files(tmp_path) == {
        "decision.json",
        "report.html",
        "sample.npz",
        *(f"leaves/ptq/{name}" for name in LEAF_FILES),
    }
    assert {(tmp_path / name).read_text() for name in files(tmp_path)} == {"second"}


def test_files_of_others_stay_where_they_are(tmp_path: Path):
    publish(tmp_path, "first", ("ptq", "qat"))
    mine = ["notes.txt", "leaves/notes.txt", "leaves/qat/notes.txt", "leaves/own/deep/model.tflite", "logs/mine.log"]
    for name in mine:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "leaves/link").symlink_to("nowhere")
    with open_output(tmp_path) as output:
        output.clear_logs(["qat", "pipeline"])
    publish(tmp_path, "second")
    assert {(tmp_path / name).read_text() for name in mine} == {"mine"}
    assert (tmp_path / "leaves/link").is_symlink()
    assert not (tmp_path / "leaves/qat/model.tflite").exists()


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("renames_done", range(12))
def test_an_exchange_that_was_cut_short_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames_done: int, earlier: bool
):
    class Killed(BaseException):
        pass

    import os

    if earlier:
        publish(tmp_path, "first")
    before = files(tmp_path)
    stale = tmp_path / ".work-stale"
    stale.mkdir()
    leaves, decision = make_result(stale, "second")
    rename, counted = os.rename, 0

    def counting(source: Path, target: Path) -> None:
        nonlocal counted
        if tmp_path in Path(source).parents and "root" not in Path(source).parts:
            if counted == renames_done:
                raise Killed
            counted += 1
        rename(source, target)

    monkeypatch.setattr(os, "rename", counting)
    finished = False
    try:
        OutputDirectory(tmp_path, stale).publish(leaves, decision)
        finished = True
    except Killed:
        pass
    monkeypatch.undo()
    with open_output(tmp_path):
        pass
    if finished:
        assert {(tmp_path / name).read_text() for name in files(tmp_path)} == {"second"}
    else:
        assert files(tmp_path) == before
        assert all((tmp_path / name).read_text() == "first" for name in before)
    assert not list(tmp_path.glob(".work-*"))


def test_two_runs_cannot_share_a_directory(tmp_path: Path):
    with open_output(tmp_path):
        with pytest.raises(CollaboptError, match="another run is writing"), open_output(tmp_path):
            pass
        assert list(tmp_path.glob(".work-*")), "the second one has removed the work of the first"
    with open_output(tmp_path):
        pass


def test_checking_makes_nothing(tmp_path: Path):
    check_output(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("taken", ["out", "out/leaves", "out/logs", "."])
def test_a_file_in_the_way_is_named(tmp_path: Path, taken: str):
    path = tmp_path / "here" / taken
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rmdir()
    path.write_text("a file")
    path.chmod(0o755)  # else it fails for not being executable
    with pytest.raises(CollaboptError) as raised:
        check_output(tmp_path / "here" / "out")
    assert raised.value.where == str(path)
