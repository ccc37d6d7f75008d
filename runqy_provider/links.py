# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The links that Airflow shows on a task: its result, and the queue of its job."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

from runqy_provider.models import LINK_KEY, QUEUE_LINK_KEY

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


#: Where the runqy server has its dashboard.
DASHBOARD = "/monitoring"


class ResultLink(BaseOperatorLink):
    """A signed URL of a result in an object store, for people; it expires."""

    name = "Result"
    xcom_key = LINK_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the URL that the task has stored on itself; empty if there is none.

        Airflow calls this whenever a process of the task ends, in that process, and
        stores the URL for the UI: reading XCom would log an error at every deferral.
        """
        return getattr(operator, "download_url", None) or ""


def queue_url(server_url: str, runqy_queue: str) -> str:
    """Return the page of a queue; the dashboard has no page for a single job."""
    return f"{server_url}{DASHBOARD}/queues/{quote(runqy_queue, safe='')}"


class QueueLink(BaseOperatorLink):
    """The page of the job's queue in the dashboard of the runqy server."""

    name = "runqy queue"
    xcom_key = QUEUE_LINK_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the URL that the task has stored on itself; empty if unknown."""
        return getattr(operator, "queue_url", None) or ""
