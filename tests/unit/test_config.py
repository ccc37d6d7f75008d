"""The options of the section ``[runqy]``: their ranges, and the receiver's URL."""

from __future__ import annotations

import pytest

from runqy_provider.errors import Misconfigured
from runqy_provider.get_provider_info import get_provider_info
from runqy_provider.settings import has_teams, load_config

#: Of each option: a value that is too small, and the smallest that is accepted.
BOUNDS = {
    "xcom_limit": ("-1", "0"),
    "link_seconds": ("-0.1", "0"),
    "settle_seconds": ("-0.1", "0"),
    "inbox_sweep_seconds": ("0", "0.1"),
    "object_sweep_seconds": ("0", "0.1"),
    "poll_seconds": ("0", "0.1"),
    "longest_poll_seconds": ("0", "0.1"),
    "watch_seconds": ("-1", "0"),
    "vanished_grace_seconds": ("-1", "0"),
    "max_body_bytes": ("0", "1"),
    "unread_ttl_seconds": ("0", "1"),
    "connection_ttl_seconds": ("-1", "0"),
}


def set_option(monkeypatch: pytest.MonkeyPatch, option: str, value: str) -> None:
    monkeypatch.setenv(f"AIRFLOW__RUNQY__{option.upper()}", value)


def test_config_bounds_are_tested_of_every_option() -> None:
    assert set(get_provider_info()["config"]["runqy"]["options"]) == set(BOUNDS)


@pytest.mark.parametrize("option", BOUNDS)
def test_config_option_out_of_range_is_refused_with_its_name(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_small, _ = BOUNDS[option]
    set_option(monkeypatch, option, too_small)

    with pytest.raises(Misconfigured, match=rf"\[runqy\] {option} must be .* not"):
        load_config()


@pytest.mark.parametrize("option", BOUNDS)
def test_config_option_smallest_value_is_read_under_its_name(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, smallest = BOUNDS[option]
    set_option(monkeypatch, option, smallest)

    assert getattr(load_config(), option) == float(smallest)


def test_config_value_is_read_from_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_option(monkeypatch, "poll_seconds", "2.5")
    set_option(monkeypatch, "max_body_bytes", "123")

    config = load_config()

    assert (config.poll_seconds, config.max_body_bytes) == (2.5, 123)


@pytest.mark.parametrize(
    ("base_url", "receiver_url"),
    [
        ("http://airflow.example:8080", "http://airflow.example:8080/runqy"),
        ("https://airflow.example/", "https://airflow.example/runqy"),
        ("https://airflow.example/team/a", "https://airflow.example/team/a/runqy"),
        ("https://airflow.example/team/a/", "https://airflow.example/team/a/runqy"),
        ("/", None),
        ("/airflow/", None),
        ("", None),
        ("airflow.example:8080", None),
        ("http://", None),
        ("ftp://airflow.example", None),
    ],
)
def test_config_receiver_url_needs_base_url_with_host(
    base_url: str, receiver_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)

    assert load_config().receiver_url == receiver_url


@pytest.mark.parametrize("is_set", [True, False])
def test_config_has_teams_is_option_of_airflow(
    is_set: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", str(is_set))

    assert has_teams() is is_set
