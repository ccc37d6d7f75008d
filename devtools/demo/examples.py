# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What each task of the example DAGs must end with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Expected:
    """The expected outcome of a task of an example.

    Attributes:
        dag_id: The DAG.
        task_id: The task.
        holds: Says whether a result, or the log of a failed task, is right.
        count: Task instances; more than one if it is mapped.
        state: The state they must end in.
    """

    dag_id: str
    task_id: str
    holds: Callable[[Any], bool]
    count: int = 1
    state: str = "success"


def plain(value: Any) -> str:
    """Return a value as text with single quotes, whether it is JSON or Python's."""
    return str(value).replace('"', "'")


#: It runs first, for a quick result.
FIRST = Expected("runqy_webhook", "transcribe", lambda v: "what was said" in str(v))

#: All of its tasks wait at once for a runqy worker to start.
FAN_OUT = Expected("runqy_fan_out", "resize", lambda v: "'width': 1280" in plain(v), 6)

EXPECTED = (
    FIRST,
    Expected("runqy_webhook", "summarise", lambda v: str(v).strip('"') == "5 words"),
    FAN_OUT,
    Expected("runqy_fan_out", "count", lambda v: str(v) == "6"),
    Expected("runqy_s3_bytes", "render", lambda v: "s3://results/renders/" in str(v)),
    Expected("runqy_s3_bytes", "inspect", lambda v: "'width': 200" in plain(v)),
    Expected("runqy_taskflow", "resize", lambda v: "'width': 1280" in plain(v), 3),
    Expected("runqy_taskflow", "total", lambda v: str(v) == "3840"),
    Expected("runqy_batch", "resize", lambda v: "#manifest" in str(v)),
    Expected("runqy_batch", "count", lambda v: str(v) == "50"),
    Expected(
        "runqy_batch", "resize_again", lambda v: plain(v).count("'width': 1280") == 20
    ),
    Expected("runqy_guide", "by_webhook", lambda v: "'sum': 6" in plain(v)),
    Expected("runqy_guide", "by_s3", lambda v: "'sum': 15" in plain(v)),
    Expected("runqy_redis_storage", "classify", lambda v: "cat" in str(v)),
    Expected("runqy_redis_storage", "by_guide", lambda v: "'sum': 24" in plain(v)),
    Expected("runqy_sql", "by_guide", lambda v: "'sum': 7" in plain(v)),
    Expected("runqy_sql", "resize", lambda v: "'width': 1280" in plain(v)),
    Expected("runqy_shared_folder", "by_guide", lambda v: "'sum': 9" in plain(v)),
    Expected("runqy_shared_folder", "render", lambda v: "/renders/" in str(v)),
    Expected("runqy_combined", "render", lambda v: "s3://results/combined/" in str(v)),
    Expected(
        "runqy_failing",
        "transcribe",
        lambda log: "ValueError: recording.silence has nothing to hear" in log,
        state="failed",
    ),
)
