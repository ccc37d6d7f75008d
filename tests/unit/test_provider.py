"""What the provider declares exists, and Airflow finds it."""

from __future__ import annotations

import importlib
import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from runqy_provider.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
INFO = get_provider_info()


def resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_provider_info_modules_can_be_imported() -> None:
    for kind in ("operators", "sensors", "hooks", "triggers"):
        for entry in INFO[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)


def test_provider_info_classes_exist() -> None:
    declared = [
        *INFO["extra-links"],
        *(entry["plugin-class"] for entry in INFO["plugins"]),
        *(entry["hook-class-name"] for entry in INFO["connection-types"]),
    ]
    assert len(declared) >= 3
    for path in declared:
        assert isinstance(resolve(path), type), path


def test_provider_info_lists_every_public_module() -> None:
    declared = {
        module
        for kind in ("operators", "sensors", "triggers")
        for entry in INFO[kind]
        for module in entry["python-modules"]
    }
    existing = {
        f"runqy_provider.{path.parent.name}.{path.stem}"
        for kind in ("operators", "sensors", "triggers")
        for path in (ROOT / "runqy_provider" / kind).glob("*.py")
        if not path.stem.startswith("_")
    }
    assert existing == declared


def test_provider_info_connection_type_equals_hook() -> None:
    [connection] = INFO["connection-types"]
    hook = resolve(connection["hook-class-name"])

    assert hook.conn_type == connection["connection-type"]
    assert hook.hook_name == connection["hook-name"]


def test_connection_form_every_field_is_read() -> None:
    [connection] = INFO["connection-types"]
    source = (ROOT / "runqy_provider" / "connections.py").read_text()

    for field in connection["conn-fields"]:
        assert f'extra.get("{field}")' in source


def test_connection_form_secrets_are_masked_by_airflow() -> None:
    """Airflow masks fields by name: in the API, in logs and in rendered fields."""
    from airflow.api_fastapi.core_api.datamodels.connections import ConnectionResponse
    from airflow.models.connection import Connection

    [form] = INFO["connection-types"]
    secrets = {
        name: f"hidden-{name}"
        for name, field in form["conn-fields"].items()
        if field["schema"].get("format") == "password"
    }
    connection = Connection("c", "runqy", extra=json.dumps(secrets))
    shown = ConnectionResponse.model_validate(connection)

    assert len(secrets) >= 3
    assert "hidden-" not in str(shown.extra)


def test_plugin_is_declared_as_entry_point_and_in_provider_info() -> None:
    """Airflow loads the plugin by its entry point, and lists the declared one."""
    [plugin] = INFO["plugins"]
    [point] = [p for p in entry_points(group="airflow.plugins") if p.name == "runqy"]

    assert resolve(plugin["plugin-class"]) is point.load()


def test_airflow_providers_manager_lists_provider_and_hook() -> None:
    from airflow.providers_manager import ProvidersManager

    from runqy_provider import airflow_compat

    runtime = airflow_compat.resolve(
        "airflow.sdk.providers_manager_runtime:ProvidersManagerTaskRuntime",
        "airflow.providers_manager:ProvidersManager",
    )
    manager: Any = ProvidersManager
    hook = runtime().hooks["runqy"]

    assert "airflow-provider-runqy" in manager().providers
    assert hook is not None
    assert hook.hook_class_name == "runqy_provider.hooks.runqy.RunqyHook"


def test_config_options_defaults_equal_the_code() -> None:
    from runqy_provider.airflow_compat import RELEASE, conf
    from runqy_provider.settings import load_config

    for name, option in INFO["config"]["runqy"]["options"].items():
        # Before 3.2 only processes of Airflow's command line know them.
        fallback = {} if RELEASE >= (3, 2) else {"fallback": option["default"]}
        assert conf.get("runqy", name, **fallback) == option["default"]
    assert load_config().xcom_limit == 65536
