"""One of several workers: `python worker_case.py FOLDER STEPS [STEP AT WHICH IT DIES]`."""

import os
import pathlib
import signal
import sys

import keras
import small_training_runs as training

from hypernet_tf.training import devices, run


class Death(keras.callbacks.Callback):
    """Kills the process after a step."""

    def __init__(self, step):
        super().__init__()
        self.last = step

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    execution = devices.Execution(devices.strategy())
    if sys.argv[3:]:
        loop = run.loop
        run.loop = lambda sampler, data, labels, callbacks, **rest: loop(
            sampler, data, labels, [*callbacks, Death(int(sys.argv[3]))], **rest
        )
    try:
        training.run(pathlib.Path(sys.argv[1]), int(sys.argv[2]), execution=execution)
    except devices.WorkerLostError as error:
        sys.exit(str(error))
