# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Mount the receiver and the page in Airflow's API server.

Airflow loads this module in every one of its processes, and only the API server asks
for ``fastapi_apps``: so nothing heavy is imported here.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

#: Where the page is. It has no common prefix with the receiver's path: a proxy that
#: exposes the receiver must not expose the page.
PAGE_PATH = "/view/runqy"


class RunqyPlugin(AirflowPlugin):
    """The runqy plugin."""

    name = "runqy"

    #: The page in the menu "Browse", and at ``/plugin/runqy``. Its address is relative,
    #: for an Airflow whose base URL has a path.
    external_views: list[Any] = [  # noqa: RUF012 - as Airflow declares it
        {
            "name": "runqy",
            "href": f"{PAGE_PATH.removeprefix('/')}/",
            "destination": "nav",
            "category": "browse",
            "url_route": "runqy",
        }
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override] # lazy on purpose
        """The receiver, at ``/runqy``, and the page, at ``/view/runqy``."""
        from runqy_provider.plugins.page.app import page_app  # noqa: PLC0415 - heavy
        from runqy_provider.plugins.receiver import receiver_app  # noqa: PLC0415 - heavy

        return [receiver_app(), page_app(PAGE_PATH)]
