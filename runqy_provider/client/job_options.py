# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What may be asked for a job beside its payload."""

from __future__ import annotations

from dataclasses import dataclass

from runqy_provider.errors import Misconfigured


@dataclass(frozen=True)
class JobOptions:
    """Options of a job; only the first one can be set over HTTP.

    Attributes:
        timeout: Timeout in seconds that runqy stores with the job. It does not enforce
            it.
        max_retry: How often a job that failed is run again; runqy's default is 3.
        active_timeout: Seconds for which the job may run: then runqy counts it as
            failed, and may run it again, while its handler goes on.
        ttl_completed: Seconds for which runqy keeps the result, where the queue stores
            results; runqy's default is a day.
    """

    timeout: float | None = None
    max_retry: int | None = None
    active_timeout: float | None = None
    ttl_completed: float | None = None

    def __post_init__(self) -> None:
        """Refuse what runqy could not do.

        Raises:
            Misconfigured: A number is negative, or not a whole number of retries.
        """
        for name, value in vars(self).items():
            least = 0 if name == "max_retry" else 1
            if value is not None and (value < least or value != value):  # noqa: PLR0124 - not a number
                raise Misconfigured(f"{name} must be {least} or more, not {value!r}.")
        if self.max_retry is not None and self.max_retry != int(self.max_retry):
            raise Misconfigured(f"max_retry must be whole, not {self.max_retry!r}.")

    def fields(self) -> dict[str, int]:
        """Return the fields that the worker reads in the job's hash."""
        named = {
            "active_timeout": self.active_timeout,
            "ttl_completed": self.ttl_completed,
        }
        return {name: int(value) for name, value in named.items() if value is not None}

    def check_http(self, conn_id: str, job_id: str | None) -> None:
        """Check that a job can be asked for over HTTP with these options.

        Args:
            conn_id: The runqy connection.
            job_id: The id that the job is to have; None where runqy may choose it.

        Raises:
            Misconfigured: One of them can only be set in runqy's Redis.
        """
        wanted = {
            "job_id": job_id,
            "max_retry": self.max_retry,
            "active_timeout": self.active_timeout,
            "ttl_completed": self.ttl_completed,
        }
        given = [name for name, value in wanted.items() if value is not None]
        if given:
            raise Misconfigured(
                f"{given[0]} cannot be set over HTTP: runqy's API has no such field. "
                f"Set the transport of connection {conn_id!r} to 'redis'."
            )
