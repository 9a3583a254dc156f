"""Admission: what waits and what runs is counted exactly, and too much of it is refused."""

from __future__ import annotations

import pytest

from foreword.server.admission import Admission, Limits
from foreword.server.http_errors import HTTPError


def test_an_answer_waits_runs_and_ends() -> None:
    admission = Admission(Limits())
    admission.admit(2, 30)
    assert (admission.waiting, admission.waiting_tokens, admission.running, admission.active) == (2, 30, 0, 2)
    admission.begin(10)
    assert (admission.waiting, admission.waiting_tokens, admission.running) == (1, 20, 1)
    admission.end(10, began=True)
    admission.end(20, began=False)
    assert (admission.waiting, admission.waiting_tokens, admission.running, admission.active) == (0, 0, 0, 0)


def test_too_many_answers_or_tokens_are_refused_whole() -> None:
    admission = Admission(Limits(queued=3, queued_tokens=100))
    admission.admit(2, 90)
    for answers, tokens, sentence in (
        (2, 1, "2 answers are waiting, but at most 3 are allowed; try again soon."),
        (1, 11, "texts of 90 tokens are waiting, but at most 100 are allowed; try again soon."),
    ):
        with pytest.raises(HTTPError) as caught:
            admission.admit(answers, tokens)
        assert (str(caught.value), caught.value.status, caught.value.headers) == (sentence, 503, {"Retry-After": "1"})
        assert (admission.waiting, admission.waiting_tokens) == (2, 90)
    admission.admit(1, 10)


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    admission = Admission(Limits(queued=1, queued_tokens=1))
    admission.admit(5, 1000)
    assert admission.active == 5
