# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""OpenLineage: the dataset that a job has written, and the job itself.

Only the OpenLineage provider needs this module, so it is imported only for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.openlineage.extractors import OperatorLineage
from attrs import define
from openlineage.client.event_v2 import OutputDataset
from openlineage.client.generated.base import RunFacet
from openlineage.client.generated.output_statistics_output_dataset import (
    OutputStatisticsOutputDatasetFacet,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Kinds of URIs that are datasets: others expire, or are rows.
DATASET_SCHEMES = ("s3", "gs", "abfs", "file")


@define
class RunqyJobRunFacet(RunFacet):
    """The job that a task has run; field names are those of OpenLineage's facets."""

    jobId: str  # noqa: N815 - see above
    deliveryId: str  # noqa: N815 - see above
    status: str


def lineage_of(
    receipt: Mapping[str, Any] | None,
) -> OperatorLineage[OutputDataset, RunFacet]:
    """Return the lineage of a task that has ended.

    Args:
        receipt: The XCom ``runqy_delivery`` of the task; None if no result has arrived.
    """
    if receipt is None:
        # OpenLineage warns in the log of the task if it gets no object.
        return OperatorLineage()
    parts = urlsplit(str(receipt["where"]))
    outputs = []
    if parts.scheme in DATASET_SCHEMES:
        size = OutputStatisticsOutputDatasetFacet(size=receipt.get("size"), fileCount=1)
        outputs.append(
            OutputDataset(
                namespace=f"{parts.scheme}://{parts.netloc}",
                name=parts.path.lstrip("/"),
                outputFacets={"outputStatistics": size},
            )
        )
    job = RunqyJobRunFacet(
        jobId=str(receipt["job_id"] or ""),
        deliveryId=str(receipt["delivery_id"]),
        status=str(receipt["status"]),
    )
    return OperatorLineage(outputs=outputs, run_facets={"runqy_job": job})
