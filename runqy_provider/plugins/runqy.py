# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Mount the receiver in Airflow's API server.

Airflow loads this module in every one of its processes, and only the API server asks
for ``fastapi_apps``: so nothing heavy is imported here.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin


class RunqyPlugin(AirflowPlugin):
    """The runqy plugin."""

    name = "runqy"

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override] # lazy on purpose
        """The receiver, at ``/runqy``."""
        from runqy_provider.plugins.receiver import receiver_app  # noqa: PLC0415 - heavy

        return [receiver_app()]
