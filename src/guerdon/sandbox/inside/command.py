"""Other programs: files are written, then commands executed, the last in the place of this process."""

from __future__ import annotations

import os
from typing import NoReturn

from guerdon.sandbox.inside.channel import Channel

NOT_EXECUTED = 127  # the exit code that shells give


def execute(channel: Channel) -> NoReturn:
    """Write files below the working directory and execute commands, without a shell, until one fails."""
    (*first, last), files = channel.receive()
    try:
        for name, content in files.items():
            if os.path.dirname(name):
                os.makedirs(os.path.dirname(name), exist_ok=True)
            with open(name, "wb") as file:
                file.write(content)
        for command in first:
            nothing = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
            process = os.posix_spawn(command[0], command, os.environ, file_actions=nothing)
            if code := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
                os._exit(code if code > 0 else 128 - code)
        os.execve(last[0], last, os.environ)
    except OSError as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
        os._exit(NOT_EXECUTED)
