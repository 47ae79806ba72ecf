"""A worker that does what no reader should, to see that the runner notices."""

import os
import signal
import time

from tests.fuzz import runner


class Misbehaved:
    """What happens in the place of a format, by its seed."""

    name = "a"

    def run(self, seed):
        """Crash, hang, take memory, raise, answer or refuse."""
        if seed == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        elif seed == 2:
            time.sleep(99)
        elif seed == 3:
            self.filled = [bytearray(2**24) for _ in range(60)]
            time.sleep(99)
        elif seed == 4:
            raise KeyError("x")
        return seed == 5


def work(connection):
    """As `runner.work`, without torch."""
    os.setsid()
    connection.send(None)
    while (task := runner.received(connection)) is not None:
        connection.send(runner.examine(Misbehaved(), task[1]))
