# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks measure before we claim: ours beside the peer and a bare floor.

Each module of ``registry`` has a function ``run(*, quick)``. It yields a
table whenever that has grown, so that nothing is lost where it is ended. ``make bench``
runs each in a process of its own, within a limit of time.
"""
