# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Replays the recorded exchanges of a real runqy with a sandbox."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_sandbox.asynq.keys import (
    FIELDS,
    QUEUES,
    decode,
    key,
    new_message,
    reverse_key,
    task_key,
)
from runqy_sandbox.asynq.lua import ENQUEUE

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_sandbox.sandbox import Sandbox

TRANSCRIPTS = Path(__file__).parent / "transcripts"

#: How far the time of a state may be from the recorded one, in seconds.
TOLERANCE = 0.8
#: Polling may miss a state that is shorter, in seconds.
MIN_DURATION = 0.5
#: How long to wait for a recorded state, in seconds.
TIMEOUT = 20.0

DATE = re.compile(r"\d{4}-\d\d-\d\d(?=$)")
#: A frame of a traceback; the directory and the line depend on the machine.
FRAME = re.compile(r'File "[^"]*?([^/"]+)", line \d+')
#: How Go's errors about JSON start; the rest is in the words of its library.
GO_JSON = re.compile(r"((^|: )(invalid character|json: cannot unmarshal \w+)).*")
#: What stands for a value that differs from run to run.
PLACEHOLDERS = {
    "<time>": re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d.*"),
    "<ns>": re.compile(r"\d{19}"),
    "<s>": re.compile(r"\d{10}"),
    "<host>:<pid>": re.compile(r".+:\d+"),
}
#: The behaviour of the task code, by a part of an entry's name.
KINDS = {"handler returns": "echo", "handler raises": "fail", "process dies": "crash"}


def read_entries(transcript: str) -> list[dict[str, Any]]:
    """Return the entries of a transcript."""
    path = TRANSCRIPTS / f"{transcript}.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text())
    return entries


class Player:
    """Plays the entries of one transcript in order, each once."""

    def __init__(self, transcript: str, sandbox: Sandbox) -> None:
        self._entries = read_entries(transcript)
        self._played = 0
        self._sandbox = sandbox
        self._redis = Redis.from_url(sandbox.redis_url)
        self._http = httpx.Client(base_url=sandbox.server_url, timeout=10)
        self._ids: dict[str, str] = {}
        self._queue = ""
        if transcript == "api":
            # It was recorded without a worker; this also removes its heartbeat.
            sandbox.worker.stop()
            self._redis.flushall()

    def close(self) -> None:
        self._redis.close()
        self._http.close()

    def play_to(self, index: int) -> None:
        """Play the entries up to an index that have not been played."""
        while self._played <= index:
            entry = self._entries[self._played]
            self._played += 1
            self._play(entry, self._entries[self._played :])

    def _play(self, entry: dict[str, Any], following: list[dict[str, Any]]) -> None:
        known = {"name", "note", "request", "response", "redis", "states", "enqueued"}
        assert entry.keys() <= known, "the transcript has an unknown field"
        if "request" in entry:
            self._exchange(entry)
        elif "enqueued" in entry:
            self._enqueue(entry, following[0]["redis"])
        elif "states" in entry:
            self._compare_states(entry["states"])
        else:
            self._compare_redis(entry["name"], entry["redis"])

    def _exchange(self, entry: dict[str, Any]) -> None:
        """Send a request and compare the response."""
        status = entry["response"]["status"]
        if "s later" in entry["name"]:
            self._poll(lambda: self._send(entry["request"]).status_code == status)
        response = self._send(entry["request"])
        assert response.status_code == status, response.text
        self._compare(entry["response"]["body"], _body(response))

    def _send(self, request: dict[str, Any]) -> httpx.Response:
        api_key = request["role"]
        if api_key not in {"wrong", None}:
            api_key = getattr(self._sandbox, f"{api_key}_key")
        content = request.get("raw")
        if "body" in request:
            # With spaces, as in the recording: some payloads keep them.
            content = json.dumps(self._put_ids(request["body"]))
        return self._http.request(
            request["method"],
            self._put_ids(request["path"]),
            content=content,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        )

    def _enqueue(self, entry: dict[str, Any], redis: dict[str, Any]) -> None:
        """Enqueue a job in Redis, and compare its status at the end."""
        name = next(name for name in redis if name.startswith("asynq:t:"))
        queue = redis[name]["value"]["queue"]
        kind = next(kind for part, kind in KINDS.items() if part in entry["name"])
        info = entry["response"]["body"].get("Info", {})
        payload = info.get("payload", json.dumps({"kind": kind})).encode()
        job_id = self._ids[name.removeprefix("asynq:t:")] = str(uuid.uuid4())
        [retry] = re.findall(r"5 retry=(\d)", entry["enqueued"])
        self._push(job_id, queue, payload, int(retry))
        expected = entry["response"]
        self._poll(lambda: self._outcome(job_id) == _outcome(expected))
        response = self._http.get(f"/queue/{job_id}")
        assert response.status_code == expected["status"]
        self._compare(expected["body"], response.json())

    def _push(self, job_id: str, queue: str, payload: bytes, retry: int) -> None:
        message = new_message(job_id, queue, payload, timeout=300, max_retry=retry)
        keys = [
            QUEUES,
            task_key(queue, job_id),
            reverse_key(job_id),
            key(queue, "pending"),
        ]
        arguments = (queue, job_id, message.SerializeToString(), time.time_ns())
        self._redis.eval(ENQUEUE, len(keys), *keys, *arguments)

    def _outcome(self, job_id: str) -> tuple[int, str]:
        response = self._http.get(f"/queue/{job_id}")
        return _outcome({"status": response.status_code, "body": response.json()})

    def _compare_states(self, expected: list[dict[str, Any]]) -> None:
        """Poll the newest job, and compare its states and their times."""
        job_id, last = list(self._ids.values())[-1], tuple(expected[-1]["http"])
        start = time.monotonic()
        outcomes: list[tuple[float, tuple[int, str]]] = []

        def is_last() -> bool:
            outcome, now = self._outcome(job_id), time.monotonic() - start
            if not outcomes or outcomes[-1][1] != outcome:
                outcomes.append((now, outcome))
            return outcome == last and now - outcomes[-1][0] > MIN_DURATION

        self._poll(is_last)
        ends = [begin for begin, _ in outcomes[1:]] + [float("inf")]
        lasting = [
            (begin, outcome)
            for (begin, outcome), end in zip(outcomes, ends, strict=True)
            if end - begin > MIN_DURATION
        ]
        assert [outcome for _, outcome in lasting] == [
            tuple(state["http"]) for state in expected
        ]
        assert [begin for begin, _ in lasting] == pytest.approx(
            [state["after_s"] for state in expected], abs=TOLERANCE
        )

    def _compare_redis(self, name: str, expected: dict[str, Any]) -> None:
        """Compare keys in Redis: their types, values and times to live."""
        if name.startswith("enqueued with the keys of the public guide"):
            self._push_as_in_the_guide()
        actual = {
            DATE.sub("<date>", redis_key): self._read(redis_key)
            for redis_key in self._keys(name, expected)
        }
        expected = {
            DATE.sub("<date>", self._put_ids(k)): v for k, v in expected.items()
        }
        assert actual.keys() == expected.keys()
        for redis_key, entry in actual.items():
            ttl = expected[redis_key]["ttl"]
            if about := re.fullmatch(r"about (\d+) s", ttl):
                assert int(about.group(1)) - 60 <= entry["ttl"] <= int(about.group(1))
            else:
                assert (ttl, entry["ttl"]) == ("none", -1)
            assert entry["type"] == expected[redis_key]["type"]
            self._compare(expected[redis_key]["value"], entry["value"])

    def _keys(self, name: str, expected: dict[str, Any]) -> list[str]:
        """Return all keys in Redis that belong to an entry, expected or not."""
        if name == "redis after that enqueue":
            pattern = "*"
        elif "public guide" in name:
            pattern = "asynq:plain.default:*"
        elif name.endswith("counters"):
            counter = re.compile(r":(processed|failed)(:|$)")
            return list(filter(counter.search, self._find(key(self._queue, "*"))))
        else:
            reverse = next(k for k in expected if k.startswith("asynq:t:"))
            self._queue = expected[reverse]["value"]["queue"]
            pattern = f"*{self._put_ids(reverse).removeprefix('asynq:t:')}*"
        return self._find(pattern)

    def _find(self, pattern: str) -> list[str]:
        names: Any = self._redis.keys(pattern)
        return [name.decode() for name in names]

    def _push_as_in_the_guide(self) -> None:
        """Push an id to the key in runqy's guide, which no worker reads."""
        self._ids["<idx>"] = str(uuid.uuid4())
        self._redis.lpush("asynq:plain.default:pending", self._ids["<idx>"])
        # When a later job has ended, the worker has polled in the meantime.
        later = str(uuid.uuid4())
        self._push(later, "plain.default", b'{"kind": "echo"}', 0)
        self._poll(lambda: self._outcome(later)[0] == httpx.codes.INTERNAL_SERVER_ERROR)

    def _read(self, name: str) -> dict[str, Any]:
        """Return the type, time to live and value of a key, as recorded."""
        redis: Any = self._redis  # its return types depend on decode_responses
        kind = redis.type(name).decode()
        value: Any
        match kind:
            case "hash":
                fields = redis.hgetall(name)
                msg = fields.pop(b"msg", None)
                value = {k.decode(): v.decode() for k, v in fields.items()}
                if msg is not None:
                    value["msg"] = "base64:" + base64.b64encode(msg).decode()
            case "list":
                value = [item.decode() for item in redis.lrange(name, 0, -1)]
            case "set":
                value = sorted(member.decode() for member in redis.smembers(name))
            case _:
                value = redis.get(name).decode()
        return {"type": kind, "ttl": redis.ttl(name), "value": value}

    def _compare(self, expected: Any, actual: Any, where: str = "") -> None:
        """Compare JSON values; ``where`` is the path to them, for error messages."""
        match expected:
            case dict():
                assert actual.keys() == expected.keys(), where
                for name, value in expected.items():
                    self._compare(value, actual[name], f"{where}.{name}")
            case list():
                assert len(actual) == len(expected), where
                # The order of queues is arbitrary, as they come from a set.
                for item, other in zip(_sorted(expected), _sorted(actual), strict=True):
                    self._compare(item, other, where)
            case str():
                self._compare_text(expected, actual, where)
            case int() if where.endswith("memory_usage"):
                # Memory usage differs between versions of Redis.
                assert expected / 2 <= actual <= expected * 2, where
            case int() if where.endswith("last_beat"):
                assert abs(actual - time.time()) < TIMEOUT
            case _:
                assert actual == expected, where

    def _compare_text(self, expected: str, actual: str, where: str) -> None:
        if pattern := PLACEHOLDERS.get(expected):
            assert pattern.fullmatch(actual), (where, actual)
        elif re.fullmatch(r"<id\d+>", expected):
            assert str(uuid.UUID(actual)) == actual
            assert self._ids.setdefault(expected, actual) == actual, where
        elif expected.startswith("base64:"):
            self._compare_message(expected, actual)
        else:
            assert _without_details(actual) == _without_details(
                self._put_ids(expected)
            ), where

    def _compare_message(self, expected: str, actual: str) -> None:
        recorded = decode(base64.b64decode(expected.removeprefix("base64:")))
        message = decode(base64.b64decode(actual.removeprefix("base64:")))
        assert message.id in self._ids.values()
        assert bool(message.completed_at) == bool(recorded.completed_at)
        rest = [name for _, name, _ in FIELDS if name not in {"id", "completed_at"}]
        assert {name: getattr(message, name) for name in rest} == {
            name: getattr(recorded, name) for name in rest
        }

    def _put_ids(self, value: Any) -> Any:
        """Replace the placeholders of job ids."""
        text = json.dumps(value)
        for name, job_id in self._ids.items():
            text = text.replace(name, job_id)
        return json.loads(text)

    @staticmethod
    def _poll(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, "timeout while polling"
            time.sleep(0.02)


def _outcome(response: dict[str, Any]) -> tuple[int, str]:
    """Return the HTTP status, and the job's state or the error message."""
    body = response["body"]
    state = body["Info"]["state"] if "Info" in body else body["errors"][0]
    return response["status"], state


def _without_details(text: str) -> str:
    """Return a text without what may differ: places of files, Go's own words."""
    return GO_JSON.sub(r"\1", FRAME.sub(r'File "\1"', text))


def _sorted(values: list[Any]) -> list[Any]:
    if values and isinstance(values[0], dict) and "queue" in values[0]:
        return sorted(values, key=lambda value: value["queue"])
    return values


def _body(response: httpx.Response) -> Any:
    if response.headers["content-type"].startswith("application/json"):
        return response.json()
    return {"text": response.text}
