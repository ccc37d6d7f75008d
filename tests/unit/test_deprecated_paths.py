"""Paths that version 0.1.0 documented still work, with a warning."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PATHS = {
    "runqy_provider.sinks.s3:S3Sink": "runqy_provider.sinks:S3Sink",
    "runqy_provider.sinks.gs:GcsSink": "runqy_provider.sinks:GcsSink",
    "runqy_provider.sinks.abfs:AzureSink": "runqy_provider.sinks:AzureSink",
    "runqy_provider.sinks.file:FileSink": "runqy_provider.sinks:FileSink",
    "runqy_provider.hooks.access:get_access": "runqy_provider.context:load_context",
    "runqy_provider.sandbox.sandbox:Sandbox": "runqy_sandbox.sandbox:Sandbox",
}


@pytest.mark.parametrize(("old", "new"), PATHS.items())
def test_deprecated_path_warns_and_names_the_same_object(old: str, new: str) -> None:
    # First, as importing Airflow changes where warnings go.
    module, name = new.split(":")
    expected = getattr(importlib.import_module(module), name)
    module, name = old.split(":")
    sys.modules.pop(module, None)

    with pytest.warns(DeprecationWarning, match="deprecated"):
        found = getattr(importlib.import_module(module), name)

    assert found is expected


def test_deprecated_submit_is_there_and_says_what_to_use() -> None:
    submission = importlib.import_module("runqy_provider.hooks.submission")

    assert "RunqyHook.submit" in (submission.submit.__doc__ or "")


def test_deprecated_sandbox_command_still_runs() -> None:
    command = [sys.executable, "-m", "runqy_provider.sandbox", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "python -m runqy_sandbox" in done.stdout
    assert "deprecated" in done.stderr
