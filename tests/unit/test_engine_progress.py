"""This file tests the notes for people who watch: numbered, bounded, and waited for without a poll."""

from __future__ import annotations

import threading

from branchline.engine.progress import Progress


def test_notes_are_numbered_and_told_by_topic() -> None:
    progress = Progress(keep=2)
    for name in ("one", "two", "three"):
        progress.note("housing", "run-1" if name == "two" else "run-2", "ok", name, seconds=1.5, more="x")
    assert progress.number == 3
    assert [note.name for note in progress.since(0)] == ["two", "three"]
    assert [note.name for note in progress.since(2)] == ["three"]
    (note,) = progress.since(0, "run-1")
    assert (note.number, note.service, note.mark, note.seconds, note.more) == (2, "housing", "ok", 1.5, {"more": "x"})


def test_a_watcher_is_woken_by_the_next_note_of_its_topic() -> None:
    progress = Progress()
    late = threading.Timer(0.01, lambda: progress.note("housing", "run-1", "ok", "env"))
    progress.note("housing", "run-2", "ok", "other")
    late.start()
    assert [note.name for note in progress.since(0, "run-1", wait=60.0)] == ["env"]
    late.join()


def test_nobody_waits_longer_than_he_asked_for() -> None:
    assert Progress().since(0, wait=0.001) == ()


def test_what_comes_in_one_moment_is_told_at_once() -> None:
    """Killer: answer with the first note, and a build of 1,000 short steps is asked about 1,000 times."""
    progress = Progress(gather=60)
    progress.note("housing", "run-1", "ok", "train")
    answers: list[tuple[str, ...]] = []
    reader = threading.Thread(target=lambda: answers.append(tuple(n.name for n in progress.since(0, "run-1", 60))))
    reader.start()
    progress.note("housing", "run-1", "ok", "report")
    progress.note("housing", "run-1", "ok", "end")
    reader.join(60)
    assert answers == [("train", "report", "end")]
