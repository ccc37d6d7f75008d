# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The link from a task to its result in an object store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

from runqy_provider.models import LINK_KEY

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ResultLink(BaseOperatorLink):
    """A signed URL of a result in an object store, for people; it works for a while."""

    name = "Result"
    xcom_key = LINK_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the URL that the task has stored on itself; empty where there is none.

        Airflow calls this in the process of the task, each time that one ends, and
        stores the URL for the UI: reading XCom would log an error at every deferral.
        """
        return getattr(operator, "download_url", None) or ""
