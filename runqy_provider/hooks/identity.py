# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Identity is chosen before the deed: who asks for a delivery decides its id."""

from __future__ import annotations

import json
import uuid

#: Namespace of our ids; any fixed UUID would do, but it may never change.
NAMESPACE = uuid.UUID("6f1d3f5e-6d0b-5c9e-9a53-2f1b7c0a4e11")


def delivery_id_of(
    dag_id: str, run_id: str, task_id: str, map_index: int, attempt: int
) -> str:
    """Return the delivery_id of one attempt of one task instance."""
    # JSON, so that no two different fives are written alike.
    name = json.dumps([dag_id, run_id, task_id, map_index, attempt])
    return str(uuid.uuid5(NAMESPACE, name))
