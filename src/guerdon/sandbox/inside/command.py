"""Another program: its files are written, then it takes the place of this process."""

from __future__ import annotations

import os
from typing import NoReturn

from guerdon.sandbox.inside.channel import Channel


def execute(channel: Channel) -> NoReturn:
    """Write files below the working directory and execute a command, without a shell."""
    command, files = channel.receive()
    try:
        for name, content in files.items():
            if os.path.dirname(name):
                os.makedirs(os.path.dirname(name), exist_ok=True)
            with open(name, "wb") as file:
                file.write(content)
        os.execve(command[0], command, dict(os.environ))
    except OSError as error:
        channel.send(f"{type(error).__name__}: {error}")
        os._exit(127)
