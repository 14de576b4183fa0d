"""Several devices, several machines, other ways of running a step: the results are the same."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from replica_cases import CHECKS
from small_samplers import LOGITS, classifier, deep_ensemble, hypergan, hypernetwork, langevin, mnf
from small_training_runs import run

import hypernet_tf as hn
from hypernet_tf.training import devices
from hypernet_tf.training.checkpoints import Checkpoints
from hypernet_tf.training.devices import DeviceError, Execution
from hypernet_tf.training.loop import loop

HELPERS = pathlib.Path(__file__).parents[1] / "helpers"
# The check of the fast tests.
FEW = ("every kind of term",)


def script(name, *arguments, **environment):
    """A script of the helpers in its own process, which sees the same packages as this one."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, str(HELPERS / name), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "2"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class TestReplicas:
    @pytest.mark.parametrize(
        ("replicas", "checks"),
        [
            (2, FEW),
            pytest.param(2, tuple(CHECKS), marks=pytest.mark.slow),
            pytest.param(4, tuple(CHECKS), marks=pytest.mark.slow),
        ],
        ids=["2", "2, all", "4, all"],
    )
    def test_several_devices_compute_what_one_does(self, replicas, checks):
        """Up to rounding, because sums have another order: at most 1e-4 of the greatest value."""
        process = script("replica_cases.py", replicas, *checks)
        output, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-2000:]
        for case, differences in json.loads(output.splitlines()[-1]).items():
            for name, difference in differences.items():
                assert difference < 1e-4, (case, name)

    def test_numbers_that_cannot_be_shared_are_errors(self):
        devices.check_batch(32, 3, 4)
        devices.check_batch(1, 32, 4)
        with pytest.raises(DeviceError, match="Cannot share 10 networks among 4 devices"):
            devices.check_batch(10, 32, 4)
        with pytest.raises(DeviceError, match="Cannot share 33 images of a network among 2"):
            devices.check_batch(2, 33, 4)
        devices.check_batch(16, 32, 2, min_networks=8)
        with pytest.raises(DeviceError, match="Cannot share 16 networks among 4 devices, each of"):
            devices.check_batch(16, 32, 4, min_networks=8)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class TestWorkers:
    @pytest.mark.slow
    def test_two_workers_continue_after_one_dies(self, tmp_path):
        """A death is a clear end; started again, they end where one device does."""

        def both(steps, *death):
            addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
            processes = []
            for index, more in enumerate(((), death)):
                task = {"type": "worker", "index": index}
                config = json.dumps({"cluster": {"worker": addresses}, "task": task})
                folder = tmp_path / "both"
                processes.append(script("worker_case.py", folder, steps, *more, TF_CONFIG=config))
            errors = [process.communicate(timeout=150)[1] for process in processes]
            return [process.returncode for process in processes], errors

        codes, errors = both(5, 3)
        assert codes[1] == -9
        assert codes[0] == 1, errors[0][-2000:]
        assert errors[0].strip().splitlines()[-1].startswith("Another worker has ended")
        assert Checkpoints(tmp_path / "both" / "checkpoints").latest_step() == 2
        codes, errors = both(5)
        assert codes == [0, 0], errors
        together, record = Checkpoints(tmp_path / "both" / "checkpoints").load()
        alone, alone_record = run(tmp_path / "alone", 5)
        for ours, theirs in zip(alone.variables, together.variables, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-5)
        for ours, theirs in zip(alone_record["history"], record["history"], strict=True):
            assert ours["step"] == theirs["step"]
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert ours["accuracy"] == theirs["accuracy"]

    @pytest.mark.parametrize(
        ("config", "line"),
        [
            ("{", "Cannot read TF_CONFIG"),
            ("[]", "Cannot read TF_CONFIG"),
            ('{"cluster": {"worker": "a:1"}}', "Cannot read TF_CONFIG"),
            ('{"cluster": {"worker": ["a", "b"]}}', "Cannot read TF_CONFIG"),
            ('{"cluster": {"worker": {"1": "a:1", "2": "b:1"}}}', "Cannot read TF_CONFIG"),
            (
                '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": ["worker"]}}',
                "Cannot read TF_CONFIG",
            ),
            ('{"cluster": {"worker": ["a:1", "b:1"]}}', "does not say which worker this is"),
            ('{"cluster": {"worker": ["a:1", "a:1"]}}', "same address twice"),
            ('{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}}', "'ps' tasks"),
            (
                '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
                "this is worker 2, which is not in its cluster",
            ),
        ],
    )
    def test_a_malformed_cluster_is_one_line(self, monkeypatch, config, line):
        monkeypatch.setenv("TF_CONFIG", config)
        with pytest.raises(DeviceError, match=line) as error:
            devices.strategy()
        assert "\n" not in str(error.value)

    def test_a_port_in_use_is_one_line(self, monkeypatch):
        with socket.socket() as taken:
            taken.bind(("", 0))
            taken.listen()
            port = taken.getsockname()[1]
            monkeypatch.setenv(
                "TF_CONFIG",
                json.dumps(
                    {
                        "cluster": {"worker": [f"127.0.0.1:{port}", "127.0.0.1:1"]},
                        "task": {"type": "worker", "index": 0},
                    }
                ),
            )
            with pytest.raises(DeviceError, match=f"Port {port} .* is in use"):
                devices.strategy()

    def test_a_cluster_of_one_is_one_device(self, monkeypatch):
        monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["127.0.0.1:1"]}}')
        assert devices.strategy() is None


class TestExecution:
    def test_one_device_needs_no_strategy(self):
        assert devices.strategy(1) is None
        assert devices.strategy(None) is None  # all devices, which is one
        assert Execution().chief
        assert Execution().workers == Execution().replicas == 1

    def test_more_devices_than_the_machine_has(self):
        with pytest.raises(DeviceError, match="Cannot use 9 devices: this machine has 1"):
            devices.strategy(9)
        tf.constant(0)
        with pytest.raises(DeviceError, match="before anything else"):
            devices.split_cpu(3)
        with pytest.raises(DeviceError, match="at least 1 step"):
            Execution(steps_per_execution=0)

    @pytest.mark.slow
    def test_xla_computes_the_same(self, blobs):
        """If a step draws nothing: XLA makes other random numbers from the same seed."""

        def trained(**options):
            keras.utils.set_random_seed(0)
            sampler = deep_ensemble()
            optimizer = keras.optimizers.Adam(0.01)
            sampler.compile(optimizer, LOGITS, metrics=["accuracy"])
            x, y = (tf.constant(a) for a in blobs)
            loop(
                sampler,
                tf.data.Dataset.from_tensors((x, y)).repeat(),
                y[:1],
                [],
                steps=4,
                stops=(4,),
                execution=Execution(**options),
            )
            return sampler

        for ours, theirs in zip(
            trained().variables, trained(jit_compile=True).variables, strict=True
        ):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-5)

    @pytest.mark.slow
    def test_xla_trains_a_hypernetwork(self, tmp_path):
        execution = Execution(jit_compile=True)
        _, record = run(tmp_path, 60, checkpoint_every=30, validate_every=60, execution=execution)
        first, last = record["history"]
        assert last["accuracy_loss"] < first["accuracy_loss"]


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.usefixtures("eager_fits")
class TestPrecision:
    def loss_of_a_step(self, make, x, y):
        keras.utils.set_random_seed(0)
        sampler = make()
        sampler.compile(keras.optimizers.SGD(1e-6), LOGITS, metrics=["accuracy"], run_eagerly=True)
        return sampler, sampler.train_on_batch(x, y, return_dict=True)

    @pytest.mark.parametrize(
        ("make", "policy"),
        [
            (hypernetwork, "mixed_bfloat16"),
            (hypernetwork, "mixed_float16"),
            *(
                pytest.param(make, policy, marks=pytest.mark.slow)
                for make in (mnf, langevin)
                for policy in ("mixed_bfloat16", "mixed_float16")
            ),
        ],
        indirect=["policy"],
    )
    def test_mixed_precision_is_close(self, make, policy, blobs, tmp_path):
        """The relative error of bfloat16 is 2^-8; it is 2 % after a few layers."""
        sampler, mixed = self.loss_of_a_step(make, *blobs)
        keras.config.set_dtype_policy("float32")
        _, single = self.loss_of_a_step(make, *blobs)
        assert mixed["accuracy_loss"] == pytest.approx(single["accuracy_loss"], rel=0.02)
        assert mixed["diversity_loss"] == pytest.approx(single["diversity_loss"], rel=0.02)
        assert mixed["accuracy_loss"] != single["accuracy_loss"]  # another precision
        ensemble = sampler.sample(3)
        assert ensemble.theta().dtype == np.float32
        assert all(variable.dtype != "float16" for variable in sampler.variables)
        sampler.save(tmp_path / "mixed.keras")  # the policy is saved with the sampler
        loaded = keras.saving.load_model(tmp_path / "mixed.keras")
        np.testing.assert_array_equal(loaded.sample(3).theta(), ensemble.theta())
        outputs = loaded.sample(3).outputs(blobs[0])
        np.testing.assert_array_equal(outputs, ensemble.outputs(blobs[0]))

    @pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
    @pytest.mark.parametrize("term", ["outputs", "codes"])
    def test_terms_of_outputs_and_codes_work_in_it(self, term, policy, blobs):
        def make():
            outputs = hn.diversity.NegativeOutputEntropy()
            return hypernetwork(diversity=outputs) if term == "outputs" else hypergan()

        _, logs = self.loss_of_a_step(make, *blobs)
        assert np.isfinite(logs["diversity_loss"]) and logs["diversity_loss"] != 0

    @pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
    def test_a_network_of_mixed_precision_is_an_ordinary_model(self, policy, blobs):
        sampler = hypernetwork(classifier())
        network = sampler.sample(2)[0].to_keras()
        assert network.layers[0].compute_dtype == "bfloat16"
        assert network.layers[0].kernel.dtype == "float32"
