"""Hostile calls end in the right answer or in one clear sentence, and the run that says so finds planted faults."""

from pathlib import Path

import pytest
import trials

SCRIPT = Path(__file__).with_name("hostile.py")


def test_hostile_calls_are_answered_rightly_or_refused(share):
    seeds = range(share(10_000, 100_000))
    report = trials.run(SCRIPT, seeds)
    if report.findings:
        pytest.fail(f"{report.summary()}\n{report.details()}", pytrace=False)
    assert sum(report.counts.values()) == len(seeds)
    assert report.counts["right"] > len(seeds) / 3
    assert report.counts["too large to check"] < len(seeds) / 50


@pytest.mark.parametrize(
    ("plant", "says"), [("wrong result", "result 0 of conv2d("), ("written input", "an input was written to\nconv2d(")]
)
def test_a_planted_fault_is_found(plant, says):
    # Trial 104 is the first that calls `conv2d` rightly: a few around it find what hundreds from 0 on do.
    report = trials.run(SCRIPT, range(100, 110), workers=1, plant=plant)
    assert any(text.startswith(says) for text in report.findings.values()), report.summary()


def test_a_planted_abort_is_one_finding_and_the_rest_is_run():
    report = trials.run(SCRIPT, range(26, 29), workers=1, plant="abort")
    assert list(report.findings) == [27]
    assert "SIGABRT" in report.findings[27]
    assert "_plant_abort" in report.findings[27]  # where it happened
    assert report.counts.total() == 2


def test_a_planted_hang_is_one_finding_and_the_rest_is_run():
    # Trial 358 is of `determine_padding`: nothing is compiled, so that three seconds are enough.
    report = trials.run(SCRIPT, range(357, 359), workers=1, timeout=3, plant="hang")
    assert list(report.findings) == [357]
    assert report.findings[357].startswith("no answer after 3 s")
    assert "_plant_hang" in report.findings[357]
    assert report.counts.total() == 1
