# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the configuration of queues, and of its error messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runqy_sandbox.errors import SandboxError
from runqy_sandbox.queues import Field, SubQueue, parse_queues, read_queues

if TYPE_CHECKING:
    from pathlib import Path


def test_read_queues_from_file_resolves_paths_against_its_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").touch()
    file = tmp_path / "queues.yaml"
    file.write_text(
        "queues:\n"
        "  a: {task_code: code, sub_queues: [{name: high, priority: 3}, {name: low}]}\n"
        "  b:\n"
        "    input: [{name: n, type: int, required: false, default: 4}]\n"
        "    deployment: {git_url: 'https://example.com/x.git', redis_storage: true}\n"
    )
    first, second = parse_queues(read_queues(str(file))).queues
    assert first.task_code == tmp_path / "code"
    assert first.sub_queues == (SubQueue("a.high", 3), SubQueue("a.low", 1))
    assert second.task_code is None
    assert second.sub_queues == (SubQueue("b.default", 1),)
    assert second.fields == (Field("n", ("int",), required=False, default=4),)
    assert second.redis_storage


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (None, "must be a mapping"),
        ({"priority": 0}, "priority must be an integer of at least 1, not 0"),
        ({"priority": True}, "priority must be an integer of at least 1, not True"),
        ({"sub_queues": [{"priority": 1}]}, "each of 'sub_queues' needs a 'name'"),
        ({"sub_queues": [{"name": "a.b"}]}, "'a.b' is not a valid queue name"),
        ({"input": [{"type": "int"}]}, "each of 'input' needs a 'name'"),
        ({"input": [{"name": "n", "type": "date"}]}, "unknown type 'date'"),
        ({"deployment": {"mode": "one_shot"}}, "mode 'one_shot' is not supported"),
        ({"task_code": "no-such-directory"}, "is not a directory"),
    ],
)
def test_read_queues_invalid_queue_raises_error(entry: Any, message: str) -> None:
    with pytest.raises(SandboxError) as caught:
        read_queues({"queues": {"q": entry}})
    assert message in str(caught.value)
    assert "queue 'q'" in str(caught.value)


def test_read_queues_task_code_without_script_raises_error(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"does not contain main\.py"):
        read_queues({"queues": {"q": {"task_code": str(tmp_path)}}})


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid YAML"), ("- 1", "a top-level 'queues:'"), ("queues: 1", "entry")],
)
def test_read_queues_invalid_file_raises_error(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "queues.yaml"
    file.write_text(text)
    with pytest.raises(SandboxError, match=message) as caught:
        read_queues(file)
    assert str(file) in str(caught.value)
