# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The configured queues, in the format of runqy's YAML files."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

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
    """A queue that jobs are enqueued to; its name is ``parent.sub``."""

    name: str
    priority: int


@dataclass(frozen=True)
class Queue:
    """A parent queue, whose sub-queues share one deployment."""

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
        """Return the parent of a sub-queue, or None if it is not configured."""
        for queue in self.queues:
            if any(sub.name == sub_queue for sub in queue.sub_queues):
                return queue
        return None

    @property
    def sub_queues(self) -> list[SubQueue]:
        """All sub-queues, sorted by name."""
        subs = (sub for queue in self.queues for sub in queue.sub_queues)
        return sorted(subs, key=lambda sub: sub.name)

    @property
    def served(self) -> list[Queue]:
        """The queues that have task code, so that the worker can serve them."""
        return [queue for queue in self.queues if queue.task_code is not None]


def normalize(name: str) -> str:
    """Return the name of a sub-queue; a parent's name stands for ``parent.default``."""
    return name if "." in name else f"{name}.default"


def read_queues(source: Mapping[str, Any] | os.PathLike[str] | str) -> dict[str, Any]:
    """Read and check the configuration of queues.

    Args:
        source: The path of a YAML file, or a mapping with the same content.

    Returns:
        The configuration, with each ``task_code`` as an absolute path: those in a file
        are relative to its directory, those in a mapping to the current directory.

    Raises:
        SandboxError: The configuration is not valid.
    """
    if isinstance(source, os.PathLike | str):
        path = Path(source)
        config, where, base = _load(path), str(path), path.parent
    else:
        config, where, base = dict(source), "the given mapping", Path()
    if not isinstance(config, dict) or not isinstance(config.get("queues"), dict):
        raise SandboxError(
            f"{where}: expected a top-level 'queues:' with one entry per queue."
        )
    queues = {}
    for name, entry in config["queues"].items():
        if not isinstance(entry, dict):
            raise SandboxError(
                f"{where}: queue '{name}' must be a mapping, such as {{}}, "
                f"not {entry!r}."
            )
        queues[name] = _with_absolute_task_code(entry, base)
    resolved = {"queues": queues}
    parse_queues(resolved, where)
    return resolved


def parse_queues(config: Mapping[str, Any], where: str = "queues") -> Queues:
    """Turn a configuration, as ``read_queues`` returns it, into queues.

    Args:
        config: The configuration.
        where: The origin of the configuration, for error messages.

    Raises:
        SandboxError: An entry is missing or not valid.
    """
    return Queues(
        tuple(
            _queue(str(name), entry, f"{where}: queue '{name}'")
            for name, entry in config["queues"].items()
        )
    )


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SandboxError(
            f"{path}: cannot read the queues file: {error.strerror}. "
            "Give the path of a YAML file with a top-level 'queues:'."
        ) from error
    except yaml.YAMLError as error:
        raise SandboxError(f"{path}: not valid YAML: {error}") from error


def _with_absolute_task_code(entry: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Move ``task_code`` into the deployment; the queue itself may have it, too."""
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
            "Remove it, or set it to 'long_running'."
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
            f"{where}: task_code {directory} is not a directory. "
            "Give the path of the directory that contains the queue's main.py."
        )
    command = shlex.split(startup_cmd)
    is_python = len(command) > 1 and command[0].startswith("python")
    script = command[1] if is_python else None
    if script and script.endswith(".py") and not (directory / script).is_file():
        raise SandboxError(
            f"{where}: task_code {directory} does not contain {script}, which "
            f"startup_cmd '{startup_cmd}' starts."
        )
    return directory


def _field(entry: Any, where: str) -> Field:
    if not isinstance(entry, dict) or "name" not in entry:
        raise SandboxError(f"{where}: each of 'input' needs a 'name'.")
    types = entry.get("type", [])
    types = (types,) if isinstance(types, str) else tuple(types)
    if unknown := [kind for kind in types if kind not in TYPES]:
        raise SandboxError(
            f"{where}: input '{entry['name']}' has the unknown type "
            f"'{unknown[0]}'. Use one of: {', '.join(TYPES)}."
        )
    required = bool(entry.get("required", True))
    return Field(str(entry["name"]), types, required, entry.get("default"))


def _priority(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SandboxError(
            f"{where}: priority must be an integer of at least 1, not {value!r}."
        )
    return value


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name):
        raise SandboxError(
            f"{where}: '{name}' is not a valid queue name. Use letters, digits, '-' "
            "and '_'; a dot separates a queue from its sub-queue."
        )
