#!/usr/bin/env python3
"""Runs a command on a terminal of its own and prints all that it shows there."""

import os
import pty
import sys


def main():
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.argv[1], sys.argv[1:])
    shown = b""
    while True:
        try:
            read = os.read(terminal, 65536)
        except OSError:
            # Linux says so where the other end is closed.
            break
        if not read:
            break
        shown += read
    sys.stdout.buffer.write(shown)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
