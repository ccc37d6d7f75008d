# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Try an installed package of this repository: ``smoke_test.py PACKAGE [MODULE ...]``.

``release_check.py`` runs this file as a script, with the Python of an environment where
the package is installed. So it imports only the standard library at the top. MODULE
names libraries that the package imports and does not require: its modules that need one
of them may fail to import. With ``--imports-only`` only the modules are imported.
"""

from __future__ import annotations

import argparse
import http.client
import importlib
import json
import subprocess
import sys
import time
from importlib import metadata, resources
from pathlib import Path, PurePosixPath
from typing import Any

#: How long a job of the sandbox may take, in seconds.
JOB_TIMEOUT = 60.0


class SmokeTestError(Exception):
    """A check failed; the message says which one and why."""


def import_all(package: str, optional: frozenset[str]) -> None:
    """Import every module of an installed package.

    Args:
        package: Name of the package.
        optional: Libraries that may be missing.

    Raises:
        SmokeTestError: A module cannot be imported, or was not imported from the
            environment.
    """
    files = [PurePosixPath(file) for file in metadata.files(package) or ()]
    names = [_module_name(file) for file in files if file.suffix == ".py"]
    skipped = [name for name in names if not _is_imported(name, optional)]
    _say(f"{package}: modules imported: {len(names) - len(skipped)}")
    if skipped:
        missing = ", ".join(sorted(optional))
        _say(f"{package}: modules that need {missing}: {len(skipped)}")


def _module_name(file: PurePosixPath) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def _is_imported(name: str, optional: frozenset[str]) -> bool:
    """Import a module, and return False if an optional library is missing.

    Raises:
        SmokeTestError: It failed for another reason.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if any(f"{missing}.".startswith(f"{each}.") for each in optional):
            return False
        raise SmokeTestError(f"{name} cannot be imported: {error}") from error
    except Exception as error:
        raise SmokeTestError(f"{name} cannot be imported: {error!r}") from error
    file = Path(module.__file__ or "").resolve()
    if not file.is_relative_to(Path(sys.prefix).resolve()):
        raise SmokeTestError(f"{name} was imported from {file}.")
    return True


def try_delivery() -> None:
    """Check that it comes alone, and that a plain payload passes through."""
    installed = [found.metadata["Name"] for found in metadata.distributions()]
    if installed != ["runqy-delivery"]:
        raise SmokeTestError(f"runqy-delivery must come alone, not with {installed}.")
    delivery = importlib.import_module("runqy_delivery")
    returned = delivery.delivers(lambda payload: payload)({"input": 1})
    if returned != {"input": 1}:
        raise SmokeTestError(f"@delivers returned {returned!r} for a plain payload.")
    _say("runqy-delivery: comes alone; @delivers returns the result of a plain payload")


def try_sandbox() -> None:
    """Run the command's help, then start a sandbox and run a job of ``echo``."""
    command = [sys.executable, "-I", "-m", "runqy_sandbox", "--help"]
    help_text = subprocess.run(command, check=True, capture_output=True, text=True)
    if "--task-code" not in help_text.stdout:
        raise SmokeTestError(f"Its help does not name --task-code:\n{help_text.stdout}")
    _say("runqy-sandbox: python -m runqy_sandbox --help works")
    queues = importlib.import_module("runqy_sandbox.echo").ECHO_QUEUES
    start = importlib.import_module("runqy_sandbox.sandbox").Sandbox
    with start(queues) as sandbox:
        job_id = _enqueue(sandbox)
        _wait_until_completed(sandbox, job_id)
    _say("runqy-sandbox: a sandbox started, and a job of its queue echo completed")


def _enqueue(sandbox: Any) -> str:
    body = {"queue": "echo", "timeout": 60, "data": {"input": 1}}
    answer = _request(sandbox, "POST", "/queue/add", json.dumps(body))
    return str(answer["info"]["id"])


def _wait_until_completed(sandbox: Any, job_id: str) -> None:
    end = time.monotonic() + JOB_TIMEOUT
    state = None
    while time.monotonic() < end:
        state = _request(sandbox, "GET", f"/queue/{job_id}")["Info"]["state"]
        if state == "completed":
            return
        time.sleep(0.1)
    raise SmokeTestError(f"After {JOB_TIMEOUT:g} s the job is {state}, not completed.")


def _request(sandbox: Any, method: str, path: str, body: str | None = None) -> Any:
    """Send a request to the sandbox's server, and return the JSON of its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.server_port)
    headers = {"X-API-Key": sandbox.client_key, "Content-Type": "application/json"}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.status != http.client.OK:
        raise SmokeTestError(f"{method} {path} returned {response.status}: {content!r}")
    return json.loads(content)


def try_provider() -> None:
    """Create an operator and a sensor, and check that Airflow finds the provider."""
    operators = importlib.import_module("runqy_provider.operators.runqy")
    sensors = importlib.import_module("runqy_provider.sensors.runqy")
    operators.RunqyOperator(task_id="job", runqy_queue="inference", payload={})
    sensors.RunqySensor(task_id="delivery", delivery_id="delivery", job_id="job")
    for path in (
        "hooks.runqy:RunqyHook",
        "hooks.result:RunqyResultHook",
        "triggers.delivery:DeliveryTrigger",
        "triggers.channel:DeliveryChannelTrigger",
        "decorators.runqy:runqy_task",
    ):
        module, _, name = path.partition(":")
        getattr(importlib.import_module(f"runqy_provider.{module}"), name)
    static = resources.files("runqy_provider.plugins.page") / "static"
    if not (static / "index.html").is_file():
        raise SmokeTestError("The files of the page in Airflow's UI are missing.")
    _say("airflow-provider-runqy: operator, sensor, hooks, triggers, page are there")
    _check_discovery()


def _check_discovery() -> None:
    manager = importlib.import_module("airflow.providers_manager").ProvidersManager()
    provider = manager.providers.get("airflow-provider-runqy")
    if provider is None:
        raise SmokeTestError("Airflow does not list airflow-provider-runqy.")
    [plugin] = metadata.entry_points(group="airflow.plugins", name="runqy")
    plugin.load()
    _say(f"airflow-provider-runqy: Airflow lists it, version {provider.version}")


SMOKE_TESTS = {
    "runqy-delivery": try_delivery,
    "runqy-sandbox": try_sandbox,
    "airflow-provider-runqy": try_provider,
}


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Try a package, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("package", choices=SMOKE_TESTS)
    parser.add_argument("optional", nargs="*")
    parser.add_argument("--imports-only", action="store_true")
    options = parser.parse_args()
    try:
        if not options.imports_only:
            SMOKE_TESTS[options.package]()
        import_all(options.package, frozenset(options.optional))
    except SmokeTestError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
