# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Drive Airflow through its public API, as a user's script would."""

from __future__ import annotations

import time
import uuid
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

FINISHED = ("success", "failed")

#: Seconds that one answer may take.
TIMEOUT = 60

#: The API server answers 500 while another process has locked an SQLite database. All
#: requests made here may be sent twice.
_RETRY = Retry(
    total=6,
    backoff_factor=0.5,
    status_forcelist=(500, 502, 503, 504),
    allowed_methods=None,
    raise_on_status=False,
)


class AirflowClient:
    """A logged-in client.

    Args:
        url: Address of the API server, which accepts everyone as an admin.
    """

    def __init__(self, url: str) -> None:
        answer = requests.get(f"{url}/auth/token", timeout=TIMEOUT)
        answer.raise_for_status()
        self._base = f"{url}/api/v2"
        self._session = requests.Session()
        # Loopback only: no proxy, and no login from a .netrc.
        self._session.trust_env = False
        self._session.mount("http://", HTTPAdapter(max_retries=_RETRY))
        token = answer.json()["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        answer = self._session.request(
            method, f"{self._base}{path}", timeout=TIMEOUT, **more
        )
        answer.raise_for_status()
        return answer

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON at a path."""
        return self._ask("GET", path, params=parameters).json()

    def post(self, path: str, body: Any) -> Any:
        """Post JSON and return the answer."""
        return self._ask("POST", path, json=body).json()

    def patch(self, path: str, body: Any) -> Any:
        """Change the object at a path and return the answer."""
        return self._ask("PATCH", path, json=body).json()

    def delete(self, path: str) -> None:
        """Delete the object at a path."""
        self._ask("DELETE", path)

    def wait_for_dags(self, dag_ids: set[str], limit: float = 120.0) -> None:
        """Wait until Airflow has parsed these DAGs.

        Raises:
            TimeoutError: It has not; the message has the import errors.
        """
        end = time.monotonic() + limit
        known: set[str] = set()
        while time.monotonic() < end:
            known = {dag["dag_id"] for dag in self.get("/dags", limit=200)["dags"]}
            if dag_ids <= known:
                return
            time.sleep(0.5)
        errors = self.get("/importErrors")["import_errors"]
        raise TimeoutError(f"Airflow knows {known}, not {dag_ids - known}: {errors}")

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run and return its id."""
        run_id = f"client__{uuid.uuid4().hex}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf or {}}
        try:
            self.post(f"/dags/{dag_id}/dagRuns", body)
        except requests.HTTPError as error:
            # The request was repeated, and had been accepted before.
            if error.response.status_code != requests.codes.conflict:
                raise
        return run_id

    def state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run, mapped ones too."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(path, limit=100, offset=len(found))
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def xcom(self, ti: dict[str, Any], key: str = "return_value") -> Any:
        """Return an XCom of a task instance; None if there is none."""
        path = (
            f"/dags/{ti['dag_id']}/dagRuns/{ti['dag_run_id']}/taskInstances/"
            f"{ti['task_id']}/xcomEntries/{key}"
        )
        try:
            found = self.get(path, **_position_of(ti), deserialize="false")
        except requests.HTTPError as error:
            if error.response.status_code == requests.codes.not_found:
                return None
            raise
        return found["value"]

    def log(self, ti: dict[str, Any]) -> str:
        """Return the log of a task instance's last try as text."""
        content = self.get(
            f"/dags/{ti['dag_id']}/dagRuns/{ti['dag_run_id']}/taskInstances/"
            f"{ti['task_id']}/logs/{ti['try_number']}",
            **_position_of(ti),
            full_content=True,
        )["content"]
        return "\n".join(str(line) for line in content)


def _position_of(ti: dict[str, Any]) -> dict[str, Any]:
    """Return what tells a task instance from others of its task, as parameters."""
    # From Airflow 3.4 on, in a loop and in an expansion.
    names = ("region_id", "region_index") if ti.get("region_id") else ("map_index",)
    return {name: ti[name] for name in names}
