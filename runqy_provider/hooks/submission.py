# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deprecated: ``submit`` is a method of RunqyHook now."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runqy_provider.context import SinkContext
    from runqy_provider.hooks.runqy import RunqyHook
    from runqy_provider.models import JobRef
    from runqy_provider.sinks.registry import SinkArgument


def submit(
    hook: RunqyHook, access: SinkContext, sink: SinkArgument, **arguments: Any
) -> JobRef:
    """Check a sink, and enqueue a job; use ``RunqyHook.submit``.

    Args:
        hook: The hook of the runqy server.
        access: What ``hooks.access.get_access`` returned.
        sink: Where the result is to be delivered.
        arguments: Those of ``RunqyHook.submit``.
    """
    warnings.warn(
        "runqy_provider.hooks.submission.submit is deprecated: use RunqyHook.submit.",
        DeprecationWarning,
        stacklevel=2,
    )
    hook.context = access
    return hook.submit(sink, **arguments)
