"""Requests to runqy's API, before they are sent."""

from __future__ import annotations

import pytest

from runqy_provider.client import api
from runqy_provider.errors import PayloadTooLarge


def test_enqueue_payload_too_large_is_refused_with_advice() -> None:
    with pytest.raises(PayloadTooLarge, match="object store"):
        api.enqueue("helper", {"x": "y" * api.MAX_BODY}, None)
