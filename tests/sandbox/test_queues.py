# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The queues file: what it may say, and what is said when it says it wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runqy_sandbox.errors import SandboxError
from runqy_sandbox.queues import Field, SubQueue, parse_queues, read_queues

if TYPE_CHECKING:
    from pathlib import Path


def test_task_code_is_found_beside_the_file(tmp_path: Path) -> None:
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
    ("entry", "words"),
    [
        (None, "must be a mapping"),
        ({"priority": 0}, "priority must be a whole number from 1, not 0"),
        ({"priority": True}, "priority must be a whole number from 1, not True"),
        ({"sub_queues": [{"priority": 1}]}, "each of 'sub_queues' needs a 'name'"),
        ({"sub_queues": [{"name": "a.b"}]}, "'a.b' is no name for a queue"),
        ({"input": [{"type": "int"}]}, "each of 'input' needs a 'name'"),
        ({"input": [{"name": "n", "type": "date"}]}, "unknown type 'date'"),
        ({"deployment": {"mode": "one_shot"}}, "mode 'one_shot' is not supported"),
        ({"task_code": "no-such-directory"}, "is no directory"),
    ],
)
def test_a_queue_that_makes_no_sense(entry: Any, words: str) -> None:
    with pytest.raises(SandboxError) as caught:
        read_queues({"queues": {"q": entry}})
    assert words in str(caught.value)
    assert "queue 'q'" in str(caught.value)


def test_task_code_without_the_script_that_is_started(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"has no main\.py"):
        read_queues({"queues": {"q": {"task_code": str(tmp_path)}}})


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not valid YAML"), ("- 1", "a top-level 'queues:'"), ("queues: 1", "entry")],
)
def test_a_file_that_makes_no_sense(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "queues.yaml"
    file.write_text(text)
    with pytest.raises(SandboxError, match=words) as caught:
        read_queues(file)
    assert str(file) in str(caught.value)
