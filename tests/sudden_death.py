"""Once imported: the process of rank DIE_RANK kills itself, as SIGKILL from outside would, before its batch DIE_AT."""

import itertools
import os
import signal

from clearclip.evaluation import ClearCLIPSegmentation

_predict, _batches = ClearCLIPSegmentation.predict, itertools.count()


def _until_then(self, *arguments, **options):
    chosen = os.environ.get("RANK", "0") == os.environ.get("DIE_RANK", "0")
    if chosen and next(_batches) == int(os.environ["DIE_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return _predict(self, *arguments, **options)


ClearCLIPSegmentation.predict = _until_then
