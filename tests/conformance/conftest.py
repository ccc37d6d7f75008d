# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Replays the recorded exchanges of a real runqy against the sandbox."""

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

from runqy_sandbox.asynq.keys import FIELDS, decode, key, new_message, reverse_key
from runqy_sandbox.asynq.lua import ENQUEUE

if TYPE_CHECKING:
    from collections.abc import Callable

    from runqy_sandbox.sandbox import Sandbox

HERE = Path(__file__).parent / "transcripts"
#: How far a change of state may be from the recorded second.
TOLERANCE = 0.8
#: A shorter state may or may not be seen by someone who polls.
BRIEF = 0.5
DEADLINE = 20.0

DATE = re.compile(r"\d{4}-\d\d-\d\d(?=$)")
FRAME = re.compile(r'File "[^"]*?([^/"]+)", line \d+')
PLACEHOLDERS = {
    "<time>": re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d.*"),
    "<ns>": re.compile(r"\d{19}"),
    "<s>": re.compile(r"\d{10}"),
    "<host>:<pid>": re.compile(r".+:\d+"),
}
KINDS = {"handler returns": "echo", "handler raises": "fail", "process dies": "crash"}


class Player:
    """Plays the entries of one transcript in order, each once."""

    def __init__(self, transcript: str, sandbox: Sandbox) -> None:
        self.entries = json.loads((HERE / f"{transcript}.json").read_text())
        self.played = 0
        self._sandbox = sandbox
        self._redis = Redis.from_url(sandbox.redis_url)
        self._http = httpx.Client(base_url=sandbox.server_url, timeout=10)
        self._ids: dict[str, str] = {}
        self._queue = ""
        if transcript == "api":  # recorded before there was a worker
            sandbox.worker.stop()
            self._redis.flushall()  # its heartbeat; this Redis is the sandbox's own

    def close(self) -> None:
        self._redis.close()
        self._http.close()

    def play_to(self, index: int) -> None:
        while self.played <= index:
            entry = self.entries[self.played]
            self.played += 1
            self._play(entry, self.entries[self.played :])

    def _play(self, entry: dict[str, Any], following: list[dict[str, Any]]) -> None:
        known = {"name", "note", "request", "response", "redis", "states", "enqueued"}
        assert entry.keys() <= known, "the transcript says something new"
        if "request" in entry:
            self._exchange(entry)
        elif "enqueued" in entry:
            self._enqueue(entry, following[0]["redis"])
        elif "states" in entry:
            self._watch(entry["states"])
        else:
            self._compare_redis(entry["name"], entry["redis"])

    def _exchange(self, entry: dict[str, Any]) -> None:
        status = entry["response"]["status"]
        if "s later" in entry["name"]:
            self._poll(lambda: self._send(entry["request"]).status_code == status)
        answer = self._send(entry["request"])
        assert answer.status_code == status, answer.text
        self._compare(entry["response"]["body"], _body(answer))

    def _send(self, request: dict[str, Any]) -> httpx.Response:
        given = request["role"]
        if given not in {"wrong", None}:
            given = getattr(self._sandbox, f"{given}_key")
        content = request.get("raw")
        if "body" in request:
            # With spaces, as it was recorded: some payloads keep them.
            content = json.dumps(self._put_ids(request["body"]))
        return self._http.request(
            request["method"],
            self._put_ids(request["path"]),
            content=content,
            headers={"Authorization": f"Bearer {given}"} if given else {},
        )

    def _enqueue(self, entry: dict[str, Any], redis: dict[str, Any]) -> None:
        name = next(name for name in redis if name.startswith("asynq:t:"))
        queue = redis[name]["value"]["queue"]
        kind = next(kind for words, kind in KINDS.items() if words in entry["name"])
        info = entry["response"]["body"].get("Info", {})
        payload = info.get("payload", json.dumps({"kind": kind})).encode()
        job_id = self._ids[name.removeprefix("asynq:t:")] = str(uuid.uuid4())
        retry = re.search(r"5 retry=(\d)", entry["enqueued"]).group(1)
        self._push(job_id, queue, payload, int(retry))
        expected = entry["response"]
        self._poll(lambda: self._outcome(job_id) == _outcome(expected))
        answer = self._http.get(f"/queue/{job_id}")
        assert answer.status_code == expected["status"]
        self._compare(expected["body"], answer.json())

    def _push(self, job_id: str, queue: str, payload: bytes, retry: int) -> None:
        message = new_message(job_id, queue, payload, timeout=300, max_retry=retry)
        names = ["asynq:queues", key(queue, f"t:{job_id}"), reverse_key(job_id)]
        names.append(key(queue, "pending"))
        arguments = (queue, job_id, message.SerializeToString(), time.time_ns())
        self._redis.eval(ENQUEUE, len(names), *names, *arguments)

    def _outcome(self, job_id: str) -> tuple[int, str]:
        answer = self._http.get(f"/queue/{job_id}")
        return _outcome({"status": answer.status_code, "body": answer.json()})

    def _watch(self, expected: list[dict[str, Any]]) -> None:
        """Poll the job just enqueued, and compare the states that last."""
        job_id, last = list(self._ids.values())[-1], tuple(expected[-1]["http"])
        start = time.monotonic()
        seen: list[tuple[float, tuple[int, str]]] = []

        def last_is_seen_for_a_while() -> bool:
            outcome, now = self._outcome(job_id), time.monotonic() - start
            if not seen or seen[-1][1] != outcome:
                seen.append((now, outcome))
            return outcome == last and now - seen[-1][0] > BRIEF

        self._poll(last_is_seen_for_a_while)
        ends = [when for when, _ in seen[1:]] + [float("inf")]
        lasting = [
            (when, outcome)
            for (when, outcome), end in zip(seen, ends, strict=True)
            if end - when > BRIEF
        ]
        assert [outcome for _, outcome in lasting] == [
            tuple(state["http"]) for state in expected
        ]
        assert [when for when, _ in lasting] == pytest.approx(
            [state["after_s"] for state in expected], abs=TOLERANCE
        )

    def _compare_redis(self, name: str, expected: dict[str, Any]) -> None:
        if name.startswith("enqueued with the keys of the public guide"):
            self._push_as_the_guide_says()
        actual = {
            DATE.sub("<date>", found): self._read(found)
            for found in self._keys(name, expected)
        }
        wanted = {DATE.sub("<date>", self._put_ids(k)): v for k, v in expected.items()}
        assert actual.keys() == wanted.keys()
        for found, entry in actual.items():
            ttl = wanted[found]["ttl"]
            if about := re.fullmatch(r"about (\d+) s", ttl):
                assert int(about.group(1)) - 60 <= entry["ttl"] <= int(about.group(1))
            else:
                assert (ttl, entry["ttl"]) == ("none", -1)
            assert entry["type"] == wanted[found]["type"]
            self._compare(wanted[found]["value"], entry["value"])

    def _keys(self, name: str, expected: dict[str, Any]) -> list[str]:
        """Return all keys that the entry is about, so that none is left over."""
        if name == "redis after that enqueue":
            pattern = "*"
        elif "public guide" in name:
            pattern = "asynq:plain.default:*"
        elif name.endswith("counters"):
            names = self._redis.keys(f"asynq:{{{self._queue}}}:*")
            counter = re.compile(r":(processed|failed)(:|$)")
            return [n.decode() for n in names if counter.search(n.decode())]
        else:
            reverse = next(k for k in expected if k.startswith("asynq:t:"))
            self._queue = expected[reverse]["value"]["queue"]
            pattern = f"*{self._put_ids(reverse).removeprefix('asynq:t:')}*"
        return [name.decode() for name in self._redis.keys(pattern)]

    def _push_as_the_guide_says(self) -> None:
        self._ids["<idx>"] = str(uuid.uuid4())
        self._redis.lpush("asynq:plain.default:pending", self._ids["<idx>"])
        # A job that comes later and is done shows that the worker has looked.
        later = str(uuid.uuid4())
        self._push(later, "plain.default", b'{"kind": "echo"}', 0)
        self._poll(lambda: self._outcome(later)[0] == httpx.codes.INTERNAL_SERVER_ERROR)

    def _read(self, name: str) -> dict[str, Any]:
        kind = self._redis.type(name).decode()
        match kind:
            case "hash":
                found = self._redis.hgetall(name)
                msg = found.pop(b"msg", None)
                value = {k.decode(): v.decode() for k, v in found.items()}
                if msg is not None:
                    value["msg"] = "base64:" + base64.b64encode(msg).decode()
            case "list":
                value = [v.decode() for v in self._redis.lrange(name, 0, -1)]
            case "set":
                value = sorted(v.decode() for v in self._redis.smembers(name))
            case _:
                value = self._redis.get(name).decode()
        return {"type": kind, "ttl": self._redis.ttl(name), "value": value}

    def _compare(self, expected: Any, actual: Any, where: str = "") -> None:
        match expected:
            case dict():
                assert actual.keys() == expected.keys(), where
                for name, value in expected.items():
                    self._compare(value, actual[name], f"{where}.{name}")
            case list():
                assert len(actual) == len(expected), where
                # The recorded order of queues is that of a set: by chance.
                for want, have in zip(_sorted(expected), _sorted(actual), strict=True):
                    self._compare(want, have, where)
            case str():
                self._compare_text(expected, actual, where)
            case int() if where.endswith("memory_usage"):
                # The bytes differ between versions of Redis.
                assert expected / 2 <= actual <= expected * 2, where
            case int() if where.endswith("last_beat"):
                assert abs(actual - time.time()) < DEADLINE
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
            shorten = r'File "\1"'
            expected = FRAME.sub(shorten, self._put_ids(expected))
            assert FRAME.sub(shorten, actual) == expected, where

    def _compare_message(self, expected: str, actual: str) -> None:
        want = decode(base64.b64decode(expected.removeprefix("base64:")))
        have = decode(base64.b64decode(actual.removeprefix("base64:")))
        assert have.id in self._ids.values()
        assert bool(have.completed_at) == bool(want.completed_at)
        rest = [name for _, name, _ in FIELDS if name not in {"id", "completed_at"}]
        assert {n: getattr(have, n) for n in rest} == {
            n: getattr(want, n) for n in rest
        }

    def _put_ids(self, value: Any) -> Any:
        text = json.dumps(value)
        for name, job_id in self._ids.items():
            text = text.replace(name, job_id)
        return json.loads(text)

    @staticmethod
    def _poll(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, "it did not come to that in time"
            time.sleep(0.02)


def _outcome(response: dict[str, Any]) -> tuple[int, str]:
    body = response["body"]
    state = body["Info"]["state"] if "Info" in body else body["errors"][0]
    return response["status"], state


def _sorted(values: list[Any]) -> list[Any]:
    if values and isinstance(values[0], dict) and "queue" in values[0]:
        return sorted(values, key=lambda value: value["queue"])
    return values


def _body(answer: httpx.Response) -> Any:
    if answer.headers["content-type"].startswith("application/json"):
        return answer.json()
    return {"text": answer.text}


@pytest.fixture(scope="session")
def make_player() -> type[Player]:
    return Player
