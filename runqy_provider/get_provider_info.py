# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The provider info that Airflow reads."""

from __future__ import annotations

from typing import Any

from runqy_provider.config import DESCRIPTION, SECTION, declared_options
from runqy_provider.connection_form import CONN_FIELDS, UI_FIELD_BEHAVIOUR


def get_provider_info() -> dict[str, Any]:
    """Return the provider's declaration, by Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-runqy",
        "name": "runqy",
        "description": "Run jobs on runqy, defer, and return their results.",
        "integrations": [{"integration-name": "runqy", "tags": ["service"]}],
        "operators": [
            _modules(
                "runqy_provider.operators.runqy", "runqy_provider.operators.runqy_batch"
            )
        ],
        "sensors": [_modules("runqy_provider.sensors.runqy")],
        "hooks": [
            _modules("runqy_provider.hooks.runqy", "runqy_provider.hooks.result")
        ],
        "triggers": [
            _modules(
                "runqy_provider.triggers.batch",
                "runqy_provider.triggers.channel",
                "runqy_provider.triggers.delivery",
            )
        ],
        "task-decorators": [
            {
                "name": "runqy",
                "class-name": "runqy_provider.decorators.runqy.runqy_task",
            },
            {
                "name": "runqy_batch",
                "class-name": "runqy_provider.decorators.runqy.runqy_batch_task",
            },
        ],
        "extra-links": [
            "runqy_provider.links.ResultLink",
            "runqy_provider.links.QueueLink",
        ],
        "plugins": [
            {
                "name": "runqy",
                "plugin-class": "runqy_provider.plugins.runqy.RunqyPlugin",
            }
        ],
        "connection-types": [_connection_type()],
        "config": {
            SECTION: {"description": DESCRIPTION, "options": declared_options()}
        },
    }


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": "runqy", "python-modules": list(names)}


def _connection_type() -> dict[str, Any]:
    return {
        "connection-type": "runqy",
        "hook-class-name": "runqy_provider.hooks.runqy.RunqyHook",
        "hook-name": "runqy",
        "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
        "conn-fields": CONN_FIELDS,
    }
