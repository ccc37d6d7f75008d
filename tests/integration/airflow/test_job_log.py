"""What a job has logged is shown in the log of its task, if the job failed."""

from __future__ import annotations

import pytest

from runqy_provider.errors import JobFailed
from tests.support.harness import outcome_of, run_of

pytestmark = pytest.mark.usefixtures("connect", "no_settling")


@pytest.mark.parametrize("sink", ["webhook", "s3://results/log"])
def test_job_log_of_failed_job_is_shown_in_task_log(
    sink: str, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = {"log": "out of memory on GPU 3", "error": "stopped"}
    with pytest.raises(JobFailed, match="ValueError: stopped"):
        outcome_of(run_of(payload, sink=sink))

    output = capsys.readouterr().out
    assert "Last lines of the job's log" in output
    assert "out of memory on GPU 3" in output


def test_job_log_of_completed_job_is_not_delivered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert outcome_of(run_of({"log": "loaded the model", "value": 1})) == 1
    # Airflow 3.0 prints the payload itself, with all that it sends.
    assert "Last lines of the job's log" not in capsys.readouterr().out
