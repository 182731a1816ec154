"""PyTorch's ``torchrun`` as ``dist_test.sh`` uses it: one line where it would print a traceback."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as run_processes

from clearclip.utils.continuation import command_to_continue
from clearclip.utils.parent_process import PARENT_VARIABLE


def run_torchrun(arguments: Sequence[str]) -> int:
    """Run ``torchrun`` with these arguments.

    Returns:
        0, or the exit code of the first process that failed: 1 for one that a signal ended, 130 after Ctrl-C.
    """
    # The failed process has said why in a line of its own.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    try:
        run_processes(list(arguments))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        print(f"error: process {rank} was ended by {failure.signal_name()}; nothing was recorded", file=sys.stderr)
        return 1
    except (SignalException, KeyboardInterrupt) as error:
        number = getattr(error, "sigval", signal.SIGINT)
        # After Ctrl-C the first process says how to go on; other signals reach this process only.
        if number != signal.SIGINT:
            name = signal.Signals(number).name
            print(f"ended by {name}; {command_to_continue()} goes on", file=sys.stderr)
        return 128 + number
    except OSError as error:
        print(f"error: the processes cannot be started ({error.strerror}); choose another PORT", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_torchrun(sys.argv[1:]))
