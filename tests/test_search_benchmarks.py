"""What the benchmarks of searches and of recipes compute themselves."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from benchmarks import on_paper, peers, proxies, recipes
from benchmarks.curves import feasible
from deepmaker_jax.arch import ArchSpec, conv_paths, layers
from deepmaker_jax.cost import cost
from deepmaker_jax.export.weights import save_weights
from deepmaker_jax.models import Network
from deepmaker_jax.train.init import init
from deepmaker_jax.train.step import Feed
from tests.examples import SMALL
from tests.test_search_evidence import Known

NUM = SMALL.num_classes
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 1, (6, *SMALL.input_shape)).astype(np.float32)
LABELS = RNG.integers(0, NUM, 6)


def cross_entropy(logits, labels):
    return -scipy.special.log_softmax(logits, -1)[np.arange(len(labels)), labels].mean()


def loss(logits):
    return -jax.nn.log_softmax(logits)[jnp.arange(len(LABELS)), LABELS].mean()


def pixels(x):
    """Logits of a network that hands on its first pixels."""
    return x.reshape(len(x), -1)[:, :NUM]


@pytest.fixture
def handed_on(monkeypatch):
    """Returns what calls a recipe whose network hands on pixels; it gives (loss, what was seen)."""

    def inner(params, batch_stats, feed, x, loss, work):
        return loss(pixels(x)), x, None, None

    monkeypatch.setattr(recipes, "own", lambda arch: inner)

    def go(make, **rest):
        value, seen, *_ = make(SMALL, **rest)(None, None, None, IMAGES, loss, None)
        return float(value), np.asarray(seen)

    return go


def test_mixup_mixes_each_image_with_the_one_before_and_both_losses(handed_on, monkeypatch):
    monkeypatch.setattr(jax.random, "beta", lambda *_: 0.75)
    value, seen = handed_on(recipes.mixed_up)
    mixed = 0.75 * IMAGES + 0.25 * np.roll(IMAGES, 1, axis=0)
    np.testing.assert_allclose(seen, mixed, rtol=1e-6)
    both = (cross_entropy(pixels(mixed), labels) for labels in (LABELS, np.roll(LABELS, 1)))
    assert value == pytest.approx(0.75 * next(both) + 0.25 * next(both), rel=1e-5)


def test_label_smoothing_spreads_a_share_of_the_target_over_all_classes(handed_on):
    value, _ = handed_on(recipes.smoothed)
    target = np.full((6, NUM), recipes.SPREAD / NUM)
    target[np.arange(6), LABELS] += 1 - recipes.SPREAD
    logs = scipy.special.log_softmax(pixels(IMAGES), -1)
    assert value == pytest.approx(-(target * logs).sum(-1).mean(), rel=1e-5)


def test_cutout_gives_a_square_of_each_image_its_mean_and_leaves_the_rest(handed_on, monkeypatch):
    monkeypatch.setattr(recipes, "HOLE", 3)
    _, seen = handed_on(recipes.blanked)
    changed = (seen != IMAGES).any(-1)
    for image, where, new in zip(IMAGES, changed, seen, strict=True):
        rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
        assert 1 <= len(rows) <= 3
        assert where[np.ix_(rows, columns)].all()
        np.testing.assert_allclose(new[where], image.mean(), rtol=1e-5)
    assert changed.sum((1, 2)).max() == 9


def test_a_network_that_is_its_own_teacher_is_told_its_own_answers(handed_on, tmp_path):
    path, variables = tmp_path / "t.safetensors", init(SMALL, seed=0, input_scale=np.ones(1))
    save_weights(path, SMALL, variables)
    value, _ = handed_on(recipes.told, teacher=path)
    heat = recipes.TEMPERATURE
    answers = Network(layers(SMALL)).apply(variables, IMAGES)
    soft = scipy.special.softmax(np.asarray(answers) / heat, -1)
    distance = -(soft * scipy.special.log_softmax(pixels(IMAGES) / heat, -1)).sum(-1).mean()
    share = recipes.TOLD_SHARE
    wanted = (1 - share) * cross_entropy(pixels(IMAGES), LABELS) + share * heat**2 * distance
    assert value == pytest.approx(wanted, rel=1e-4)


def test_rounding_to_8_bits_changes_the_loss_a_little_and_keeps_a_gradient_for_every_kernel():
    variables = init(SMALL, seed=0, input_scale=np.ones(1))
    feed = Feed(None, None, np.ones(1, np.float32), None, None, None)
    found = [
        make(SMALL)(variables["params"], variables["batch_stats"], feed, IMAGES, loss, None)
        for make in (recipes.own, recipes.rounded)
    ]
    (plain, plain_gradient, *_), (rounded, gradient, *_) = found
    assert 0 < abs(float(rounded - plain)) < 0.05 * float(plain)
    for a, b in zip(jax.tree.leaves(plain_gradient), jax.tree.leaves(gradient), strict=True):
        assert np.linalg.norm(a - b) < 0.3 * np.linalg.norm(a)
    kernel = np.array([[-1.0, 0.4], [0.1, 127.0]], np.float32)
    key = (jax.tree_util.DictKey("kernel"),)
    kept = np.asarray(recipes._round_kernel(key, kernel))
    np.testing.assert_allclose(kept[:, 1], [0, 127])  # by column: a step of 1
    np.testing.assert_allclose(kept[:, 0], [-1, 0.1], atol=0.004)


def test_synflow_grows_with_the_weights_of_every_layer_and_knows_no_data():
    variables = init(SMALL, seed=0, input_scale=np.ones(1))
    heavier = variables | {
        "params": jax.tree_util.tree_map_with_path(
            lambda path, leaf: 2 * leaf if path[-1].key == "kernel" else leaf, variables["params"]
        )
    }
    more = proxies.synflow(SMALL, heavier) - proxies.synflow(SMALL, variables)
    shortest, longest = conv_paths(layers(SMALL))
    assert (shortest + 1) * np.log(2) <= more <= (longest + 1) * np.log(2) + 1e-9


def test_naswot_is_least_where_all_images_are_one():
    variables = init(SMALL, seed=0, input_scale=np.ones(1))
    same = proxies.naswot(SMALL, variables, np.repeat(IMAGES[:1], 6, axis=0))
    assert same == -np.inf
    assert np.isfinite(proxies.naswot(SMALL, variables, IMAGES))


def test_what_the_costs_tell_is_taken_out():
    costs = RNG.normal(size=(30, 2))
    unknown = RNG.normal(size=30)
    told = costs @ [2.0, -1.0] + 5
    left = proxies.rest(told + unknown, costs)
    np.testing.assert_allclose(left, proxies.rest(unknown, costs), atol=1e-9)
    np.testing.assert_allclose(costs.T @ left, 0, atol=1e-9)


class Asked(on_paper.Trainer):
    """Takes note of who was trained."""

    def __init__(self, budget):
        super().__init__(Known(), budget, 0)
        self.asked: list[ArchSpec] = []

    def train(self, arch, *rest):
        self.asked.append(arch)
        return super().train(arch, *rest)


def aging(trainer, seed):
    peers.aging(trainer, seed, population=25, sample=5)


@pytest.mark.parametrize("method", [peers.uniform, aging])
def test_a_peer_trains_what_is_allowed_until_all_is_spent(method):
    trainers = Asked(270), Asked(270)
    for trainer in trainers:
        with pytest.raises(on_paper.SpentError):
            method(trainer, 3)
    first, again = trainers
    assert first.asked == again.asked
    assert len(set(first.asked)) == 270 // 9 + 1  # the last was too much
    assert len(first.full) >= 30
    assert all(first.feasible.allows(first.feasible.space.encode(arch)) for arch in first.asked)


class Trial:
    """Takes note of what Optuna is told of genes; gives their last choices."""

    def __init__(self):
        self.kinds = {}

    def suggest_int(self, name, low, high):
        self.kinds[name] = "integer", low, high
        return high

    def suggest_categorical(self, name, choices):
        self.kinds[name] = "category", tuple(choices)
        return choices[-1]


def test_optuna_is_told_which_genes_have_an_order():
    trial, genes = Trial(), feasible().space.genes
    assert [peers.suggest(trial, gene) for gene in genes] == [len(g.choices) - 1 for g in genes]
    assert trial.kinds["growth_1"] == ("integer", 0, 7)
    assert trial.kinds["compression_percent_1"] == ("category", (0, 1, 2, 3))
    assert trial.kinds["activation"] == ("category", (0, 1, 2))
    ordered = {gene.name for gene in genes if gene.ordered}
    assert {name for name, kind in trial.kinds.items() if kind[0] == "integer"} == ordered


def test_the_same_networks_drawn_uniformly_are_larger():
    part = feasible()
    sizes = [
        np.median([cost(part.space.decode(g)).params for g in drawn])
        for drawn in (
            one.sample(np.random.default_rng(0), num=40) for one in (part, peers.uniformly(part))
        )
    ]
    assert 2 * sizes[0] < sizes[1] < 200_000


def test_others_are_told_the_objectives_and_train_nothing_beyond_the_limits():
    trainer = Asked(900)
    part, rng = trainer.feasible, np.random.default_rng(0)
    (small,) = part.sample(rng, num=1)
    values, excess = peers.judge(trainer, small)
    sizes = cost(part.space.decode(small)).params
    wanted = [0.5, trainer.objectives[1].scaled(sizes)]
    np.testing.assert_allclose(values, wanted)
    assert excess == part.excess(small) - 1 <= 0
    draws = (part.space.sample(rng, num=1)[0] for _ in itertools.count())
    large = next(draw for draw in draws if not part.allows(draw))
    values, excess = peers.judge(trainer, large)
    assert values[0] == 1
    assert excess > 0
    assert len(trainer.asked) == 1
