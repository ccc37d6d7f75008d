# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The provider info that Airflow reads."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": ["string", "null"]}
_SECRET = {"type": ["string", "null"], "format": "password"}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's declaration, by Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-runqy",
        "name": "runqy",
        "description": "Run jobs on runqy, defer, and return their results.",
        "integrations": [{"integration-name": "runqy", "tags": ["service"]}],
        "operators": [_modules("runqy_provider.operators.runqy")],
        "sensors": [_modules("runqy_provider.sensors.runqy")],
        "hooks": [
            _modules("runqy_provider.hooks.runqy", "runqy_provider.hooks.result")
        ],
        "triggers": [
            _modules(
                "runqy_provider.triggers.channel", "runqy_provider.triggers.delivery"
            )
        ],
        "task-decorators": [
            {
                "name": "runqy",
                "class-name": "runqy_provider.decorators.runqy.runqy_task",
            }
        ],
        "extra-links": [
            "runqy_provider.links.result.ResultLink",
            "runqy_provider.links.queue.QueueLink",
        ],
        "plugins": [
            {
                "name": "runqy",
                "plugin-class": "runqy_provider.plugins.runqy.RunqyPlugin",
            }
        ],
        "connection-types": [_connection_type()],
        "config": {"runqy": {"description": _CONFIG_DESCRIPTION, "options": _OPTIONS}},
    }


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": "runqy", "python-modules": list(names)}


def _connection_type() -> dict[str, Any]:
    return {
        "connection-type": "runqy",
        "hook-class-name": "runqy_provider.hooks.runqy.RunqyHook",
        "hook-name": "runqy",
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "login"],
            "relabeling": {
                "host": "Server URL",
                "port": "Server port",
                "password": "API key",
            },
            "placeholders": {
                "host": "http://runqy.example.com",
                # With no port stored, Airflow 3.3 refuses each test of a connection.
                "port": "3000, or 443 for https (Airflow's Test needs a port)",
                "password": "a key with the client role",
            },
        },
        # In the order in which one fills them in.
        "conn-fields": {
            "callback_url": {
                "label": "Callback URL (for the sink webhook)",
                "description": "The receiver's URL as runqy workers reach it, such as "
                "https://airflow.example.com/runqy. Empty: Airflow's [api] base_url "
                "with /runqy.",
                "schema": {**_TEXT, "format": "url"},
            },
            "callback_secret": {
                "label": "Callback secret (needed for the sink webhook)",
                "description": "Signs callback URLs, so that nobody can guess them. "
                "Make one: openssl rand -hex 32. To change it: enter the new secret, "
                "a space, and the old one.",
                "schema": _SECRET,
            },
            "redis_conn_id": {
                "label": "Redis connection (needed for the sink webhook)",
                "description": "The Airflow connection of the Redis that stores "
                "webhook deliveries until they are read.",
                "schema": {**_TEXT, "default": "redis_default"},
            },
            "sink": {
                "label": "Default sink",
                "description": "Where results go if a task names no sink: webhook, "
                "s3://bucket/prefix, gs://..., abfs://..., file:///folder, "
                "sql://conn_id/table, amqp://conn_id/queue or redis_storage. Several, "
                "separated by spaces: the first stores the result, the others only "
                "notify.",
                "schema": {**_TEXT, "default": "webhook"},
            },
            # Airflow masks what has "api_key" in its name.
            "admin_api_key": {
                "label": "Admin key (recommended)",
                "description": "A key with the admin role. With it, a task's log says "
                "when no worker serves its queue, and a killed task deletes its "
                "waiting job.",
                "schema": _SECRET,
            },
            "runqy_redis_conn_id": {
                "label": "runqy's own Redis (recommended)",
                "description": "The Airflow connection of the Redis that runqy itself "
                "uses. With it, one poll reads the state and the error of all waiting "
                "jobs, and a retry finds a job whose enqueueing was interrupted.",
                "schema": _TEXT,
            },
            "aws_conn_id": {
                "label": "AWS connection (for sinks s3://)",
                "description": "The Airflow connection for buckets.",
                "schema": {**_TEXT, "default": "aws_default"},
            },
            "signing_secret": {
                "label": "Signing secret (optional)",
                "description": "If set, workers must sign their deliveries with it "
                "(Standard Webhooks, whsec_...). Give it to them as "
                "RUNQY_DELIVERY_SIGNING_SECRET.",
                "schema": _SECRET,
            },
        },
    }


_CONFIG_DESCRIPTION = "Options of the runqy provider that apply to all connections."


def _option(kind: str, default: str, description: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": None,
        "default": default,
    }


_OPTIONS = {
    "xcom_limit": _option(
        "integer",
        "65536",
        "JSON results up to this many bytes go to XCom as values, larger ones as a "
        "reference.",
    ),
    "link_seconds": _option(
        "float",
        "86400",
        "Seconds for which the link to a result in an object store works; everyone who "
        "has the link can read the result. 0: tasks make no links.",
    ),
    "settle_seconds": _option(
        "float",
        "10",
        "A task that a worker must end is not resumed earlier than this many seconds "
        "after it deferred; a task that the triggerer ends need not wait. Airflow 3.3 "
        "fails a task that is resumed before the scheduler knows that its worker "
        "process has ended, which is up to [workers] min_heartbeat_interval (5 s) and "
        "a "
        "pass of the scheduler later.",
    ),
    "inbox_sweep_seconds": _option(
        "float", "10", "Seconds between two polls of the inbox for all waiting tasks."
    ),
    "object_sweep_seconds": _option(
        "float",
        "5",
        "Seconds between two listings of a bucket for all waiting tasks.",
    ),
    "poll_seconds": _option(
        "float",
        "0.5",
        "Seconds between two polls for a new job in a sink that gives no hints: a "
        "table, or runqy's own storage. The interval grows with the age of the job.",
    ),
    "longest_poll_seconds": _option(
        "float", "10", "The largest interval between two such polls, in seconds."
    ),
    "watch_seconds": _option(
        "float",
        "30",
        "Seconds between two polls of the jobs of all waiting tasks, to find those "
        "that "
        "ended without delivering. 0: jobs are not observed.",
    ),
    "vanished_grace_seconds": _option(
        "float",
        "30",
        "Seconds for which a delivery is still waited for once runqy has forgotten its "
        "job, or says that it is completed.",
    ),
    "max_body_bytes": _option(
        "integer",
        "8388608",
        "The largest delivery that the receiver accepts, in bytes.",
    ),
    "unread_ttl_seconds": _option(
        "integer", "604800", "Seconds that an unread delivery is kept."
    ),
    "connection_ttl_seconds": _option(
        "float",
        "60",
        "Seconds for which a triggerer and an API server cache the fields of a "
        "connection.",
    ),
}
