"""URIs of sinks and objects, references, delivery ids and callback URLs."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runqy_provider.errors import (
    BadDelivery,
    JobFailed,
    Misconfigured,
    NotThere,
    RunqyError,
    by_name,
)
from runqy_provider.inbox import callback_url
from runqy_provider.jobs.launch import delivery_id_of
from runqy_provider.models import Reference, is_reference
from runqy_provider.sinks.combined import CombinedSink
from runqy_provider.sinks.object_store.azure import AzureSink
from runqy_provider.sinks.object_store.gcs import GcsSink
from runqy_provider.sinks.object_store.local import FileSink, LocalStore
from runqy_provider.sinks.object_store.s3 import S3Sink
from runqy_provider.sinks.object_store.uri import key_at, key_in_bucket, object_uri
from runqy_provider.sinks.registry import sink_for_result, sink_from_uri
from runqy_provider.sinks.webhook import WebhookSink


@pytest.mark.parametrize(
    ("text", "sink"),
    [
        ("webhook", WebhookSink()),
        (" webhook ", WebhookSink()),
        ("s3://bucket", S3Sink("bucket")),
        ("s3://bucket/", S3Sink("bucket")),
        ("s3://bucket/a/b/", S3Sink("bucket", "a/b")),
        ("s3://bucket?presign=false", S3Sink("bucket", presign=False)),
        ("s3://bucket/p?aws_conn_id=x", S3Sink("bucket", "p", aws_conn_id="x")),
        ("s3://bucket/run%231/a%3Fb", S3Sink("bucket", "run#1/a?b")),
        ("s3://bucket/a%2520b", S3Sink("bucket", "a%20b")),
        ("s3://bucket/100%", S3Sink("bucket", "100%")),
        ("gs://bucket/my%20runs", GcsSink("bucket", "my runs")),
        ("abfs://container/my%20runs", AzureSink("container", "my runs")),
        ("file:///my%20folder", FileSink("/my folder")),
        ("file:///my%2520folder/", FileSink("/my%20folder")),
        ("file:////folder", FileSink("/folder")),
        ("file:///", FileSink("/")),
    ],
)
def test_sink_uri_is_read_and_written_back(text: str, sink: Any) -> None:
    assert sink_from_uri(text) == sink
    assert sink_from_uri(sink.uri) == sink
    assert sink_from_uri(sink) is sink


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web hook",
        "ftp://bucket",
        "s3://",
        "s3://UP/x",
        "s3://b?presign=maybe",
        "s3://bucket/a//b",
        "s3://bucket?nope=1",
        "s3://bucket/%FF",
        "s3://bucket/a%09b",
        "s3://bucket/a/../b",
        "s3://[bucket",
        "file://",
        "file:///a/%2e%2e/b",
        "file:///a%00b",
    ],
)
def test_sink_invalid_uri_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured):
        sink_from_uri(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3://bucket/run#1/x", "write %23"),
        ("s3://bucket/run#", "write %23"),
        ("file:///run#1", "write %23"),
        ("s3://bucket/a?b", "written %3F"),
    ],
)
def test_sink_uri_with_unquoted_hash_is_refused(text: str, message: str) -> None:
    with pytest.raises(Misconfigured, match=message):
        sink_from_uri(text)


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a/b", "gs://a_b/é/(1)+x=y,z", "abfs://abc", "file:///a/b~1"]
)
def test_sink_plain_uri_stays_unchanged(uri: str) -> None:
    assert sink_from_uri(uri).uri == uri


@pytest.mark.parametrize("name", ["a\tb", "a\0b", "..", "a/./b", "\ud800"])
def test_object_sink_unportable_name_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match=r"is not (a valid name|an absolute path)"):
        S3Sink("bucket", name)
    with pytest.raises(Misconfigured, match=r"is not (a valid name|an absolute path)"):
        FileSink(f"/{name}")


def test_file_sink_relative_folder_is_refused() -> None:
    with pytest.raises(Misconfigured, match="name the whole folder, /a/b"):
        FileSink("/a", "b")
    with pytest.raises(Misconfigured, match="not an absolute path"):
        FileSink("//a")


#: Characters that have a meaning in URIs are drawn often.
CHARACTERS = st.one_of(
    st.sampled_from(" %?#&=+:@;,[]~\\\u00a0\u3000"),
    st.characters(exclude_categories=("Cs", "Cc")),
)
PARTS = st.text(CHARACTERS, min_size=1).filter(
    lambda part: "/" not in part and part not in {".", ".."}
)
PATHS = st.lists(PARTS, max_size=4).map("/".join)
CONNECTIONS = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
OBJECT_SINKS = st.one_of(
    *(
        st.builds(kind, st.from_regex(names, fullmatch=True), PATHS, st.booleans(), ids)
        for kind, names, ids in (
            (S3Sink, r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", CONNECTIONS),
            (GcsSink, r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", CONNECTIONS),
            (AzureSink, r"[a-z0-9](?:-?[a-z0-9]){2,62}", CONNECTIONS),
        )
    ),
    PATHS.map(lambda path: FileSink(f"/{path}")),
)


@settings(deadline=None)
@given(OBJECT_SINKS)
def test_object_sink_any_name_is_read_back_equal(sink: Any) -> None:
    assert sink_from_uri(sink.uri) == sink
    assert len(sink.uri.split()) == 1
    both = CombinedSink(sink, (WebhookSink(),))
    assert sink_from_uri(both.uri) == both


@settings(deadline=None)
@given(st.sampled_from(["s3://bucket", "gs://bucket", "abfs://abc", "file:///"]), PATHS)
def test_sink_any_text_is_a_sink_or_refused(begin: str, path: str) -> None:
    try:
        sink = sink_from_uri([f"{begin}/{path}"])
    except Misconfigured:
        return
    assert sink_from_uri(sink.uri) == sink


@settings(deadline=None)
@given(PATHS.filter(bool), PARTS)
def test_object_store_url_is_read_back_as_its_key(folder: str, name: str) -> None:
    key = f"{folder}/{name}"
    uri = object_uri("s3://bucket", key)
    assert key_at("s3://bucket", uri) == key
    assert key_at("s3://other", uri) is None
    assert key_in_bucket(uri, "bucket", None) == key
    assert sink_for_result(uri) == S3Sink("bucket")

    store = LocalStore(f"/{folder}")
    uri = object_uri(store.url, name)
    assert key_at(store.url, uri) == store.key_of(uri) == name
    assert sink_for_result(uri) == FileSink(f"/{folder}")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("s3://bucket/a/b.png", "a/b.png"),
        ("https://bucket.s3.amazonaws.com/a/b.png", "a/b.png"),
        ("https://bucket.s3.eu-west-1.amazonaws.com/a%20b?X-Amz-Signature=1", "a b"),
        ("https://bucket.s3-us-west-2.amazonaws.com/a", "a"),
        ("https://s3.amazonaws.com/bucket/a/b", "a/b"),
        ("https://s3.cn-north-1.amazonaws.com.cn/bucket/a", "a"),
        ("http://127.0.0.1:9000/bucket/a?x=1", "a"),
        ("http://bucket.127.0.0.1:9000/a", "a"),
        ("s3://other/a", None),
        ("s3://bucket", None),
        ("s3://bucket/", None),
        ("https://bucket.s3.amazonaws.com/", None),
        ("https://other.s3.amazonaws.com/a", None),
        ("https://s3.amazonaws.com/other/a", None),
        ("https://bucket.s3.amazonaws.com.evil.com/a", None),
        ("https://evil.com/bucket/a", None),
        ("https://bucket.evil.com/a", None),
        ("https://bucket.evils3.amazonaws.com/a", None),
        ("http://127.0.0.1:9001/bucket/a", None),
        ("https://user@evil.com:443/bucket/a", None),
        ("file:///bucket/a", None),
        ("bucket/a", None),
    ],
)
def test_object_store_url_of_other_bucket_has_no_key(url: str, key: Any) -> None:
    assert key_in_bucket(url, "bucket", "http://127.0.0.1:9000") == key


def test_object_store_invalid_url_is_bad_delivery() -> None:
    for url in ("http://[::1", "http://h:port/x"):
        with pytest.raises(BadDelivery):
            key_in_bucket(url, "bucket", None)


@given(st.text())
def test_object_store_any_url_raises_only_bad_delivery(url: str) -> None:
    try:
        key = key_in_bucket(url, "bucket", None)
    except BadDelivery:
        return
    assert key is None or "bucket" in url


def test_reference_is_read_back_from_xcom() -> None:
    reference = Reference("s3://b/k", "image/png", 5, "d", {"w": 1})
    value = reference.to_xcom()

    assert is_reference(value)
    assert Reference.from_xcom(value) == reference
    assert Reference.from_xcom(reference) is reference


@pytest.mark.parametrize("value", [None, 5, "text", {"uri": "x"}, {"a": 1}, []])
def test_reference_from_other_value_is_refused(value: Any) -> None:
    assert not is_reference(value)
    with pytest.raises(Misconfigured, match="is not a reference"):
        Reference.from_xcom(value)


def test_error_class_is_found_by_name() -> None:
    assert by_name("NotThere") is NotThere
    assert by_name("JobFailed") is JobFailed
    assert by_name("KeyError") is RunqyError


PLACES = st.tuples(st.text(), st.text(), st.text(), st.integers(-1, 1000))
REGIONS = st.tuples() | st.tuples(st.uuids().map(str), st.integers(0, 1000))
ATTEMPTS = st.tuples(
    st.builds(lambda place, region: [*place, *region], PLACES, REGIONS),
    st.integers(1, 100),
    st.uuids().map(str),
)


@given(ATTEMPTS, ATTEMPTS)
def test_delivery_id_equal_only_for_the_same_attempt(one: Any, other: Any) -> None:
    assert delivery_id_of(*one) == delivery_id_of(*one)
    assert (delivery_id_of(*one) == delivery_id_of(*other)) == (one == other)
    assert uuid.UUID(delivery_id_of(*one)).version == 5


NOW = time.time()
IDS = st.from_regex(callback_url.DELIVERY_ID, fullmatch=True)
SECRETS = ("one secret", "another one")


@given(st.text(min_size=1), IDS, st.integers(int(NOW) + 1, 10**12 - 1))
def test_callback_url_is_valid_for_its_delivery_only(
    conn_id: str, delivery_id: str, expires: int
) -> None:
    for secret in SECRETS:
        try:
            token = callback_url.token(secret, conn_id, delivery_id, expires)
        except UnicodeEncodeError:
            return  # no URL can carry a lone surrogate
        arguments = (conn_id, delivery_id, str(expires), token)
        assert callback_url.is_valid(SECRETS, *arguments, NOW)
        assert not callback_url.is_valid(SECRETS, *arguments, expires + 1)
        assert not callback_url.is_valid(("a third",), *arguments, NOW)
        assert not callback_url.is_valid((), *arguments, NOW)


@given(st.text(), st.text(), st.text(), st.text())
def test_callback_url_made_up_is_never_valid(
    conn_id: str, delivery_id: str, expires: str, token: str
) -> None:
    assert not callback_url.is_valid(SECRETS, conn_id, delivery_id, expires, token, NOW)


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        ("webhook redis_storage", "cannot be combined"),
        ("redis_storage webhook", "cannot be combined"),
        ("webhook s3://results", "Name it first"),
        ("s3://results gs://results", "Name it first"),
        (["sql://a/t", "sql://b/t"], "two sinks of the same kind"),
        ([], "empty"),
        (" ", "empty"),
    ],
)
def test_combined_sink_invalid_combination_is_refused(sink: Any, message: str) -> None:
    with pytest.raises(Misconfigured, match=message):
        sink_from_uri(sink)


def test_combined_sink_uri_is_read_back_equal() -> None:
    sink = sink_from_uri(["s3://results/a?presign=false", "sql://pg/t", "webhook"])

    assert sink.uri == "s3://results/a?presign=false sql://pg/t webhook"
    assert sink_from_uri(sink.uri) == sink
