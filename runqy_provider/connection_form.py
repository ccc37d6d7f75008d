# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The form of a runqy connection in Airflow's UI, declared once for all versions.

From 3.2 on Airflow reads the declaration. Before, it asks the hook for widgets, which
are made from the same declaration.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": ["string", "null"]}
_SECRET = {"type": ["string", "null"], "format": "password"}

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "login"],
    "relabeling": {
        "host": "Server URL",
        "port": "Server port",
        "password": "API key",
    },
    "placeholders": {
        "host": "http://runqy.example.com",
        # Without a stored port, Airflow 3.3 refuses each test of a connection.
        "port": "3000, or 443 for https (Airflow's Test needs a port)",
        "password": "a key with the client role",
    },
}

#: Our own fields, in the order in which users fill them in.
CONN_FIELDS: dict[str, Any] = {
    "callback_url": {
        "label": "Callback URL (for the sink webhook)",
        "description": "The receiver's URL as runqy workers reach it, such as "
        "https://airflow.example.com/runqy. Empty: Airflow's [api] base_url "
        "with /runqy.",
        "schema": {**_TEXT, "format": "url"},
    },
    "callback_secret": {
        "label": "Callback secret (needed for the sink webhook)",
        "description": "Signs callback URLs, so that they cannot be guessed. Make one: "
        "openssl rand -hex 32. To change it: enter the new secret, a space, and the "
        "old one.",
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
    "transport": {
        "label": "Transport",
        "description": "How jobs are enqueued: http, or redis: directly in runqy's own "
        "Redis, many times faster. Then a job never runs twice because an answer was "
        "lost, but a queue's input schema is not checked.",
        "schema": {**_TEXT, "default": "http"},
    },
    "aws_conn_id": {
        "label": "AWS connection (for sinks s3://)",
        "description": "The Airflow connection for buckets.",
        "schema": {**_TEXT, "default": "aws_default"},
    },
    "signing_secret": {
        "label": "Signing secret (optional)",
        "description": "If set, workers must sign their deliveries with it "
        "(Standard Webhooks). Make one: echo whsec_$(openssl rand -base64 32). "
        "Give it to them as RUNQY_DELIVERY_SIGNING_SECRET.",
        "schema": _SECRET,
    },
}


def ui_field_behaviour() -> dict[str, Any]:
    """Return the behaviour of the standard fields, as a hook declares it."""
    return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}


def form_widgets() -> dict[str, Any]:
    """Return a widget for each field of our own, as a hook declares them.

    Raises:
        ImportError: Flask-AppBuilder is not installed: Airflow 3.0 has a form only with
            its FAB provider; Airflow 3.1 has substitutes for these imports.
    """
    from flask_appbuilder.fieldwidgets import (  # noqa: PLC0415 - only where a form is made
        BS3PasswordFieldWidget,
        BS3TextFieldWidget,
    )
    from wtforms import PasswordField, StringField  # noqa: PLC0415 - same

    widgets: dict[str, Any] = {}
    for name, field in CONN_FIELDS.items():
        is_secret = field["schema"].get("format") == "password"
        kind = PasswordField if is_secret else StringField
        widgets[name] = kind(
            field["label"],
            widget=BS3PasswordFieldWidget() if is_secret else BS3TextFieldWidget(),
            description=field["description"],
            default=field["schema"].get("default"),
        )
    return widgets
