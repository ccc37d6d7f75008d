"""What every sink does, with each kind of storage."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from runqy_provider.errors import NotThere, RunqyError
from runqy_provider.jobs.waiting import look_once
from runqy_provider.models import ARRIVED, DEADLINE
from runqy_provider.sinks.registry import sink_for_result, sink_from_uri
from tests.contracts.backends import RESULT, WITH_RESULT_URI, WITH_SERVER

if TYPE_CHECKING:
    from tests.contracts.backends import Backend


def test_sink_uri_is_read_back_as_equal_sink(backend: Backend) -> None:
    sink = sink_from_uri(backend.uri)

    assert sink.uri == backend.uri
    assert sink_from_uri(sink) == sink


def test_sink_check_passes(backend: Backend) -> None:
    backend.bound.check()


def test_sink_request_is_plain_json_with_delivery_id(backend: Backend) -> None:
    job = backend.job()

    request = backend.bound.request(job.delivery_id, time.time() + 60)

    assert request.delivery_id == job.delivery_id
    assert job.delivery_id in json.dumps(request.to_fields())


def test_sink_delivery_is_opened_where_it_arrived(backend: Backend) -> None:
    job = backend.job()
    backend.deliver(job)

    event = look_once(backend.bound.settings, job)

    assert (event.kind, event.status) == (ARRIVED, "completed")
    assert backend.bound.owns(event.result_uri)
    assert backend.bound.open(event.result_uri).json() == RESULT
    sink = sink_for_result(event.result_uri).bind(backend.bound.settings)
    assert sink.open(event.result_uri).json() == RESULT


@pytest.mark.parametrize("backend", WITH_RESULT_URI, indirect=True)
def test_sink_result_uri_is_where_delivery_arrives(backend: Backend) -> None:
    job = backend.job()
    expected = backend.bound.result_uri(job.delivery_id)
    backend.deliver(job)

    assert look_once(backend.bound.settings, job).result_uri == expected


@pytest.mark.parametrize("backend", WITH_RESULT_URI, indirect=True)
def test_sink_missing_delivery_is_not_there(backend: Backend) -> None:
    uri = backend.bound.result_uri(backend.job().delivery_id)

    with pytest.raises(NotThere):
        backend.bound.open(uri)


def test_sink_without_delivery_reports_nothing_and_no_error(backend: Backend) -> None:
    event = look_once(backend.bound.settings, backend.job())

    assert (event.kind, event.last_error, event.unreadable_because) == (
        DEADLINE,
        "",
        "",
    )
    assert event.last_poll is not None


def test_sink_timeout_names_delivery_or_job(backend: Backend) -> None:
    job = backend.job()

    message = backend.bound.describe_timeout(job)

    assert job.delivery_id in message or str(job.job_id) in message


@pytest.mark.parametrize("backend", WITH_SERVER, indirect=True)
@pytest.mark.usefixtures("make_unavailable")
def test_sink_unavailable_fails_its_check(backend: Backend) -> None:
    with pytest.raises(RunqyError):
        backend.bound.check()


@pytest.mark.parametrize("backend", WITH_SERVER, indirect=True)
@pytest.mark.usefixtures("make_unavailable")
def test_sink_unavailable_is_not_taken_for_nothing_arrived(backend: Backend) -> None:
    event = look_once(backend.bound.settings, backend.job())

    assert event.kind == DEADLINE
    assert event.unreadable_because
