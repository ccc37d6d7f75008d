# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The configured queues, in the words of runqy's own YAML files."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runqy_sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*")
TYPES = ("string", "bool", "int", "float", "array", "object")


@dataclass(frozen=True)
class Field:
    """One field of a queue's input schema."""

    name: str
    types: tuple[str, ...]
    required: bool
    default: Any


@dataclass(frozen=True)
class SubQueue:
    """A queue as jobs name it: `parent.sub`."""

    name: str
    priority: int


@dataclass(frozen=True)
class Queue:
    """A parent queue: its sub-queues share one deployment."""

    name: str
    sub_queues: tuple[SubQueue, ...]
    fields: tuple[Field, ...]
    redis_storage: bool
    startup_cmd: str
    startup_timeout: float
    task_code: Path | None
    git_url: str
    branch: str


@dataclass(frozen=True)
class Queues:
    """All configured queues."""

    queues: tuple[Queue, ...]

    def find(self, sub_queue: str) -> Queue | None:
        """Return the parent of a sub-queue, or nothing if it is not configured."""
        for queue in self.queues:
            if any(sub.name == sub_queue for sub in queue.sub_queues):
                return queue
        return None

    @property
    def sub_queues(self) -> list[SubQueue]:
        """All sub-queues by name."""
        subs = (sub for queue in self.queues for sub in queue.sub_queues)
        return sorted(subs, key=lambda sub: sub.name)

    @property
    def served(self) -> list[Queue]:
        """The queues whose task code is here, so that a worker can serve them."""
        return [queue for queue in self.queues if queue.task_code is not None]


def normalize(name: str) -> str:
    """Return the name of the sub-queue that a name means."""
    return name if "." in name else f"{name}.default"


def read_queues(source: Mapping[str, Any] | Path | str) -> dict[str, Any]:
    """Return checked YAML words, with every `task_code` as an absolute path.

    Raises:
        SandboxError: The words do not describe queues.
    """
    if isinstance(source, Path | str):
        path = Path(source)
        words, where, base = _load(path), str(path), path.parent
    else:
        words, where, base = dict(source), "the given mapping", Path()
    if not isinstance(words, dict) or not isinstance(words.get("queues"), dict):
        raise SandboxError(
            f"{where}: expected a top-level 'queues:' with one entry a queue."
        )
    queues = {}
    for name, entry in words["queues"].items():
        if not isinstance(entry, dict):
            raise SandboxError(f"{where}: queue '{name}' must be a mapping.")
        queues[name] = _with_absolute_task_code(entry, base)
    resolved = {"queues": queues}
    parse_queues(resolved, where)
    return resolved


def parse_queues(words: Mapping[str, Any], where: str = "queues") -> Queues:
    """Turn YAML words into queues.

    Raises:
        SandboxError: A word is missing or of the wrong kind.
    """
    return Queues(
        tuple(
            _queue(str(name), entry, f"{where}: queue '{name}'")
            for name, entry in words["queues"].items()
        )
    )


def _load(path: Path) -> Any:
    import yaml  # noqa: PLC0415 - from the extra; its absence has an error of its own

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SandboxError(
            f"{path}: cannot read the queues file: {error.strerror}. "
            "Give the path of a YAML file with 'queues:'."
        ) from error
    except yaml.YAMLError as error:
        raise SandboxError(f"{path}: not valid YAML: {error}") from error


def _with_absolute_task_code(entry: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Move `task_code` into the deployment; it may stand in the queue as well."""
    entry = dict(entry)
    deployment = dict(entry.get("deployment") or {})
    task_code = entry.pop("task_code", None) or deployment.get("task_code")
    if task_code is not None:
        deployment["task_code"] = str((base / str(task_code)).resolve())
    return {**entry, "deployment": deployment}


def _queue(name: str, entry: Mapping[str, Any], where: str) -> Queue:
    _check_name(name, where)
    deployment = entry.get("deployment") or {}
    if deployment.get("mode", "long_running") != "long_running":
        raise SandboxError(
            f"{where}: mode '{deployment['mode']}' is not supported by the sandbox. "
            "Leave it out, or say 'long_running'."
        )
    startup_cmd = str(deployment.get("startup_cmd", "python main.py"))
    return Queue(
        name=name,
        sub_queues=_sub_queues(name, entry, where),
        fields=tuple(_field(field, where) for field in entry.get("input") or ()),
        redis_storage=bool(deployment.get("redis_storage", False)),
        startup_cmd=startup_cmd,
        startup_timeout=float(deployment.get("startup_timeout_secs", 60)),
        task_code=_task_code(deployment.get("task_code"), startup_cmd, where),
        git_url=str(deployment.get("git_url", "")),
        branch=str(deployment.get("branch", "main")),
    )


def _sub_queues(
    name: str, entry: Mapping[str, Any], where: str
) -> tuple[SubQueue, ...]:
    listed = entry.get("sub_queues")
    if listed is None:
        priority = _priority(entry.get("priority", 1), where)
        return (SubQueue(f"{name}.default", priority),)
    subs = []
    for sub in listed:
        if not isinstance(sub, dict) or "name" not in sub:
            raise SandboxError(f"{where}: each of 'sub_queues' needs a 'name'.")
        _check_name(str(sub["name"]), where)
        priority = _priority(sub.get("priority", 1), where)
        subs.append(SubQueue(f"{name}.{sub['name']}", priority))
    return tuple(subs)


def _task_code(given: str | None, startup_cmd: str, where: str) -> Path | None:
    if given is None:
        return None
    directory = Path(given)
    if not directory.is_dir():
        raise SandboxError(
            f"{where}: task_code {directory} is no directory. "
            "Name the directory that has the queue's main.py."
        )
    words = shlex.split(startup_cmd)
    script = words[1] if len(words) > 1 and words[0].startswith("python") else None
    if script and script.endswith(".py") and not (directory / script).is_file():
        raise SandboxError(
            f"{where}: task_code {directory} has no {script}, which "
            f"startup_cmd '{startup_cmd}' starts."
        )
    return directory


def _field(words: Any, where: str) -> Field:
    if not isinstance(words, dict) or "name" not in words:
        raise SandboxError(f"{where}: each of 'input' needs a 'name'.")
    types = words.get("type", [])
    types = (types,) if isinstance(types, str) else tuple(types)
    if unknown := [kind for kind in types if kind not in TYPES]:
        raise SandboxError(
            f"{where}: input '{words['name']}' has the unknown type "
            f"'{unknown[0]}'. Known: {', '.join(TYPES)}."
        )
    required = bool(words.get("required", True))
    return Field(str(words["name"]), types, required, words.get("default"))


def _priority(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SandboxError(
            f"{where}: priority must be a whole number from 1, not {value!r}."
        )
    return value


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name):
        raise SandboxError(
            f"{where}: '{name}' is no name for a queue: "
            "use letters, digits, '-' and '_'; dots separate sub-queues."
        )
