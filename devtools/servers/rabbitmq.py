"""A real RabbitMQ on a free port, with nothing in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pika

from devtools.servers.installed import require
from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The script itself: the one on the PATH requires a user of its own.
SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


@dataclass
class RabbitMQ:
    """A running broker; ``child`` stops and starts it."""

    port: int
    child: Child

    @property
    def url(self) -> str:
        """Address of its one virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def connect(self) -> pika.BlockingConnection:
        """Return a connection."""
        return pika.BlockingConnection(pika.URLParameters(self.url))


@contextmanager
def running_rabbitmq() -> Iterator[RabbitMQ]:
    """Start a broker, and remove all of it at the end."""
    script = require(str(SCRIPT) if SCRIPT.exists() else None, "rabbitmq-server")
    home = Path(tempfile.mkdtemp(prefix="runqy-rabbitmq-"))
    port, distribution, names = free_port(), free_port(), free_port()
    config = home / "rabbitmq.conf"
    config.write_text(f"listeners.tcp.local = 127.0.0.1:{port}\n")
    plugins = home / "enabled_plugins"
    plugins.write_text("[].\n")
    environment = {
        "HOME": str(home),
        "RABBITMQ_NODENAME": f"runqy{port}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_SCHEMA_DIR": str(home / "schema"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "config"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
        # Erlang's name server: a port of its own, and on loopback only.
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            "-kernel inet_dist_use_interface {127,0,0,1}"
        ),
    }

    def answers(_pid: int) -> bool:
        try:
            pika.BlockingConnection(
                pika.ConnectionParameters("127.0.0.1", port)
            ).close()
        except pika.exceptions.AMQPError:
            return False
        return True

    watchdog = Watchdog()
    program = Program("RabbitMQ", [script], answers, environment)
    child = Child(program, home / "log.txt", watchdog)
    try:
        child.start()
        yield RabbitMQ(port, child)
    finally:
        child.stop()
        watchdog.close()
        _end_name_server(names)
        shutil.rmtree(home, ignore_errors=True)


def _end_name_server(port: int) -> None:
    """End the name server that Erlang started, which outlives the broker."""
    epmd = shutil.which("epmd")
    if epmd is not None:
        environment = {**os.environ, "ERL_EPMD_PORT": str(port)}
        subprocess.run(
            [epmd, "-kill"], env=environment, check=False, capture_output=True
        )
