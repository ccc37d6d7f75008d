# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Identity is chosen before the deed: who asks for a delivery decides its id."""

from __future__ import annotations

import json
import uuid

#: Namespace of our ids; any fixed UUID would do, but it may never change.
NAMESPACE = uuid.UUID("6f1d3f5e-6d0b-5c9e-9a53-2f1b7c0a4e11")


def delivery_id_of(  # noqa: PLR0917 - all six are one attempt, and none has a default
    dag_id: str, run_id: str, task_id: str, map_index: int, attempt: int, ti_id: str
) -> str:
    """Return the delivery_id of one attempt of one task instance.

    ``ti_id`` is Airflow's own id of that attempt. The other five may come again: in a
    run that was deleted and made anew, or in another Airflow that shares a bucket.
    """
    # JSON, so that no two different sixes are written alike.
    name = json.dumps([dag_id, run_id, task_id, map_index, attempt, ti_id])
    return str(uuid.uuid5(NAMESPACE, name))
