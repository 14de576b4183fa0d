"""The table of methods: its presets, and the samplers that it builds."""

import dataclasses
import itertools

import keras
import pytest

import hypernet_tf as hn
from reproduce import table1
from reproduce.configs import (
    METHODS,
    TARGETS,
    RunConfig,
    build_sampler,
    preset,
    register_method,
)
from reproduce.configs.extensions import ExtensionError
from reproduce.configs.methods import (
    DIVERSITY,
    DiversityOption,
    diversity_help,
    lam_of,
    methods_help,
    methods_of,
    presets_of,
    register_diversity,
)
from reproduce.configs.targets import targets_of

ROWS = [row for method in METHODS.values() for row in method.presets]
NUM_DATA = 4_000


def row_name(row):
    return f"{row.experiment}-{row.method}-{row.preset}-{row.target}"


@pytest.fixture
def small_targets(monkeypatch):
    """Every target has 20 weights or 40, and its hypernetwork is small."""

    def make(shape, classes):
        pool = keras.layers.GlobalAveragePooling2D()
        return keras.Sequential([keras.Input(shape), pool, keras.layers.Dense(classes)])

    sizes = {
        "latent_dim": 4,
        "code_dim": 3,
        "extractor_hidden": (8,),
        "generator_hidden": (8,),
    }
    for name, kind in TARGETS.items():
        small = dataclasses.replace(kind, make=make, hypernetwork=sizes)
        monkeypatch.setitem(TARGETS, name, small)


class TestPresets:
    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_has_all_presets(self, method):
        for experiment, name in itertools.product(("mnist", "cifar"), ("paper", "quick")):
            row = preset(experiment, method, name)
            assert (row.experiment, row.method, row.preset) == (experiment, method, name)
            assert row.target == targets_of(experiment)[0]
            assert row.dataset == {"mnist": "mnist", "cifar": "cifar10"}[experiment]

    def test_no_row_is_there_twice(self):
        names = [row_name(row) for row in ROWS]
        assert len(set(names)) == len(names)

    def test_the_published_numbers(self):
        """Deutsch et al. (2019), section 4.1 and appendix A; Louizos and Welling (2017)."""
        hypernetwork = preset("mnist", "hypernetwork", "paper")
        assert hypernetwork == RunConfig(
            experiment="mnist",
            method="hypernetwork",
            preset="paper",
            target="mnist",
            steps=13_000,
            num_networks=200,
            networks_per_step=32,
            images_per_network=32,
            learning_rate=3e-4,
            learning_rate_decay=0.99998,
            lam=1_000.0,
            optimizer="adam",
            dataset="mnist",
            diversity="weights",
            validate_every=1_000,
            checkpoint_every=250,
        )
        assert hypernetwork.passes_per_step * 13_000 == 13_312_000
        mnf = preset("mnist", "mnf", "paper")
        assert (mnf.steps, mnf.networks_per_step, mnf.images_per_network) == (55_000, 1, 100)
        assert (mnf.learning_rate, mnf.decay_per_step, mnf.num_networks) == (1e-3, 1.0, 200)
        sgd = preset("mnist", "sgd", "paper")
        assert (sgd.steps, sgd.networks_per_step, sgd.images_per_network) == (10_000, 1, 256)
        assert (sgd.learning_rate, sgd.decay_per_step, sgd.num_networks) == (1e-3, 0.9999, 1)

    def test_the_fast_hypernetwork(self):
        fast, quick = (preset("mnist", "hypernetwork", name) for name in ("fast", "quick"))
        assert fast.passes_per_step * fast.steps == 512_000
        assert dataclasses.replace(quick, preset="fast", num_networks=200) == fast
        sampler = build_sampler(fast, NUM_DATA)
        names = {"name": "", "target": ""}
        assert sampler.get_config() | names == hn.Hypernetwork(sampler.target).get_config() | names

    def test_the_fast_hypernetwork_of_lenet(self):
        fast, quick = (preset("cifar", "hypernetwork", name) for name in ("fast", "quick"))
        assert dataclasses.replace(quick, preset="fast", steps=2_000) == fast
        assert quick.image_passes == preset("cifar", "mixture", "quick").image_passes

    def test_methods_name_their_presets(self):
        assert presets_of("mnist", "hypernetwork") == ["paper", "fast", "quick"]
        assert presets_of("cifar", "mnf") == ["paper", "quick"]

    def test_a_row_for_one_target_stands_before_that_of_the_default_target(self):
        lenet, resnet32, other = (
            preset("cifar", "hypernetwork", "paper", target=target)
            for target in ("lenet", "resnet32", "resnet32_b")
        )
        assert (lenet.networks_per_step, resnet32.networks_per_step) == (32, 8)
        assert dataclasses.replace(resnet32, target="resnet32_b") == other
        chains = preset("cifar", "sgd_chains", "paper", target="resnet32")
        of_default = preset("cifar", "sgd_chains", "paper")
        assert chains == dataclasses.replace(of_default, target="resnet32")

    def test_changes(self):
        row = preset("cifar", "sgd", "quick", dataset="mnist_5k", steps=7)
        assert (row.dataset, row.steps, row.augment) == ("mnist_5k", 7, False)
        assert row.decay_per_step**7 == pytest.approx(0.01)  # the rate follows the steps
        for name in hn.data.names_for((32, 32, 3)):
            colour = name not in hn.data.names_for((28, 28, 1))
            for part in ("", ":0-4", ":5000"):
                assert preset("cifar", "sgd", "quick", dataset=name + part).augment == colour
        assert not preset("mnist", "sgd", "quick").augment

    def test_the_rate_rises_in_the_same_part_of_a_shorter_training(self):
        where = "cifar", "deep_ensemble", "paper"
        long = preset(*where, target="lenet_normalized")
        assert (long.steps, long.warmup_steps) == (28_670, 1_000)
        assert preset(*where, target="lenet_normalized", steps=2_867).warmup_steps == 100

    def test_no_such_preset(self):
        with pytest.raises(KeyError):
            preset("mnist", "sgd", "fast")


class TestSamplers:
    @pytest.mark.parametrize(
        "row",
        [
            row if row.preset == "quick" else pytest.param(row, marks=pytest.mark.slow)
            for row in ROWS
        ],
        ids=row_name,
    )
    def test_a_preset_builds_the_sampler_that_it_describes(self, row, small_targets):
        sampler = build_sampler(row, NUM_DATA)
        assert sampler.num_networks == row.networks_per_step
        rate = row.learning_rate / (NUM_DATA if row.method == "sgld" else 1)
        sampler.optimizer.iterations.assign(row.warmup_steps)
        assert float(sampler.optimizer.learning_rate) == pytest.approx(rate)
        assert any(sampler.target.regularizers) == (row.l2 > 0 and row.method != "hypergan")
        lam = {"hypernetwork": 1_000, "mixture": 1_000, "sgld": NUM_DATA}.get(row.method, 1)
        assert float(sampler.lam.numpy()) == lam
        chains = row.method in ("sgd_chains", "sgd_snapshots", "sgld")
        uses_sgd = isinstance(sampler.optimizer, keras.optimizers.SGD)
        assert uses_sgd == (row.optimizer == "sgd")
        assert uses_sgd or not chains
        if uses_sgd:
            assert sampler.optimizer.momentum == row.momentum == (0.0 if chains else 0.9)
        available = METHODS[row.method].num_available(row)
        sampler.step.assign(row.steps)
        assert available == sampler.num_available
        assert METHODS[row.method].shares_images == sampler.shared_inputs
        assert available is None or available >= row.num_networks
        assert (available == 1) == (row.method == "sgd")

    @pytest.mark.parametrize("name", METHODS)
    def test_the_number_of_networks_after_few_steps_is_known(self, name, small_targets):
        config = preset("mnist", name, "quick", steps=7)
        available = METHODS[name].num_available(config)
        sampler = build_sampler(config, NUM_DATA)
        sampler.step.assign(7)
        assert available == sampler.num_available

    @pytest.mark.parametrize("diversity", DIVERSITY)
    def test_diversity_chooses_the_terms(self, diversity, small_targets):
        config = dataclasses.replace(
            preset("cifar", "hypernetwork", "quick"), diversity=diversity, lam=7.0
        )
        sampler = build_sampler(config, NUM_DATA)
        kinds = {
            "weights": ["NegativeEntropy"],
            "outputs": ["NegativeOutputEntropy"],
            "none": [],
        }
        assert [type(term).__name__ for term in sampler.diversity] == kinds[diversity]
        assert float(sampler.lam.numpy()) == 7

    @pytest.mark.parametrize(("schedule", "half"), [("exponential", 0.1), ("cosine", 0.505)])
    def test_the_rate_falls_to_a_hundredth(self, schedule, half, small_targets):
        row = preset("cifar", "sgd", "quick", steps=400)
        row = dataclasses.replace(row, learning_rate_schedule=schedule)
        sampler = build_sampler(row, NUM_DATA)
        for step, fraction in ((0, 1.0), (200, half), (400, 0.01)):
            sampler.optimizer.iterations.assign(step)
            rate = float(sampler.optimizer.learning_rate)
            assert rate == pytest.approx(row.learning_rate * fraction, rel=1e-4)

    def test_the_rate_rises_before_it_falls(self, small_targets):
        row = preset("cifar", "sgd", "quick", steps=400)
        sampler = build_sampler(dataclasses.replace(row, warmup_steps=100), NUM_DATA)
        for step, fraction in ((0, 0.0), (50, 0.5), (100, 1.0), (250, 0.505), (400, 0.01)):
            sampler.optimizer.iterations.assign(step)
            rate = float(sampler.optimizer.learning_rate)
            assert rate == pytest.approx(row.learning_rate * fraction, rel=1e-4)

    def test_the_published_hypernetwork_has_its_number_of_parameters(self):
        sampler = build_sampler(preset("mnist", "hypernetwork", "paper"), NUM_DATA)
        assert sampler.count_params() >= 633_640
        assert sum(v.value.shape.num_elements() for v in sampler.trainable_variables) == 633_640


@pytest.fixture
def known_methods():
    """Methods that a test registers are forgotten."""
    known = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(known)


def method(name="mine", **changes):
    row = RunConfig("mnist", name, "quick", "mnist", 10, 2, 2, 4, 0.1)
    return dataclasses.replace(
        METHODS["sgd"],
        name=name,
        help="what it is",
        presets=(dataclasses.replace(row, **changes),),
    )


@pytest.mark.usefixtures("known_methods")
class TestRegistration:
    def test_one_entry_makes_a_method(self):
        entry = register_method(method())
        assert METHODS["mine"] is entry
        assert "mine" in methods_of("mnist")
        assert "mine" not in methods_of("cifar")
        assert "mine: what it is" in methods_help()
        assert preset("mnist", "mine", "quick").steps == 10
        sampler = build_sampler(preset("mnist", "mine", "quick"), NUM_DATA)
        assert isinstance(sampler, hn.DeepEnsemble)

    def test_a_sampler_of_another_number_of_networks_would_have_wrong_costs(self):
        other = lambda target, *_: hn.DeepEnsemble(target, num_networks=3)  # noqa: E731
        register_method(dataclasses.replace(method(), build=other))
        with pytest.raises(ExtensionError, match=r"of 3 networks in a step, not the 2 of its pre"):
            build_sampler(preset("mnist", "mine", "quick"), NUM_DATA)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"method": "sgd"}, "is for method 'sgd'"),
            ({"experiment": "imagenet"}, "experiment 'imagenet'"),
            ({"target": "lenet"}, "target 'lenet'"),
            ({"preset": "long"}, "has preset 'long': choose from paper, fast, quick"),
            ({"optimizer": "lion"}, "has optimizer 'lion': choose from adam, sgd"),
            ({"learning_rate_schedule": "step"}, "'step': choose from exponential, cosine"),
            ({"diversity": "me"}, "has diversity 'me': choose from weights, outputs, none"),
        ],
    )
    def test_a_row_that_does_not_fit(self, changes, words):
        with pytest.raises(ValueError, match=words) as error:
            register_method(method(**changes))
        assert "\n" not in str(error.value)
        assert "mine" not in METHODS

    def test_a_row_of_another_target_alone(self):
        alone = method(experiment="cifar", target="resnet32")
        with pytest.raises(ValueError, match="'resnet32' alone: add a row for 'lenet'"):
            register_method(alone)
        (row,) = alone.presets
        both = dataclasses.replace(row, target="lenet"), row
        register_method(dataclasses.replace(alone, presets=both))
        assert preset("cifar", "mine", "quick").target == "lenet"

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"flags": ("scale",)}, "has the flag 'scale': the flags are lam, diversity"),
            ({"matches": "sgd"}, "the flag 'match': it needs both"),
            ({"flags": ("match",)}, "the flag 'match': it needs both"),
        ],
    )
    def test_flags_that_do_not_fit(self, changes, words):
        with pytest.raises(ValueError, match=words):
            register_method(dataclasses.replace(method(), **changes))
        assert "mine" not in METHODS

    def test_a_method_that_compares_outputs_counts_its_second_run(self):
        register_method(dataclasses.replace(method(), passes=lambda config: 2))
        assert preset("mnist", "mine", "quick").passes_per_step == 2 * 2 * 4

    def test_a_diversity_is_one_entry(self, monkeypatch):
        for name in ("spread", "spread of outputs"):
            monkeypatch.setitem(DIVERSITY, name, None)  # it is forgotten after the test
            del DIVERSITY[name]
        terms = {"spread": hn.diversity.NegativeEntropy(k=2)}
        terms["spread of outputs"] = hn.diversity.NegativeOutputEntropy()
        for name, term in terms.items():
            register_diversity(DiversityOption(name, "what it is", 5.0, lambda term=term: [term]))
        with pytest.raises(ValueError, match="the diversity 'spread' twice: choose another name"):
            register_diversity(DIVERSITY["spread"])
        config = preset("mnist", "hypernetwork", "quick")
        once = dataclasses.replace(config, diversity="spread")
        twice = dataclasses.replace(config, diversity="spread of outputs")
        assert once.passes_per_step == once.images_per_step
        assert twice.passes_per_step == 2 * twice.images_per_step
        assert lam_of(config, "spread") == 5.0
        assert build_sampler(once, NUM_DATA).diversity == [terms["spread"]]
        assert "spread: what it is" in diversity_help()
        assert "hypernetwork-spread" in table1.known_columns()
        assert table1.column_of("hypernetwork-spread").diversity == "spread"

    def test_a_name_that_is_taken(self):
        with pytest.raises(ValueError, match="Cannot register the method 'sgd' twice: choose"):
            register_method(method("sgd"))
