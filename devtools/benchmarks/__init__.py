# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: the provider, compared with a similar product and with a minimum.

Each module of ``registry`` has a function ``run(*, quick)``. It yields a table whenever
that has grown, so that nothing is lost if it is ended early. ``make bench`` runs each
in a process of its own, within a time limit.
"""
