"""Gradient norms along segments: breakpoints known by hand, dense sampling, the integral over the pieces, Eq. 2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import NETS, as_tree

from jl1.jacobian import input_jacobian
from jl1.models import AveragePool, Conv, Dense, SequentialNet, make_apply_fn
from jl1.segments import segment_gradient_norms

pytestmark = pytest.mark.usefixtures("quick_compile")

HIDDEN = {
    "dense": (Dense(9), Dense(8)),
    "convolutions, then dense": (Conv(3, 3, 2, "SAME"), Conv(4, 2, 1, "VALID"), Dense(6)),
    "pools": (AveragePool(2, 1), Conv(3, 2, 1, "SAME"), AveragePool(2, 2), Dense(5)),
    "linear": (),
}
ACTIVATIONS = {"relu": jax.nn.relu, "leaky_relu": jax.nn.leaky_relu}


def on_a_line(slopes, breakpoints, *, first_kernel=None, activation=jax.nn.relu):
    """f(x) = sum_k slopes[k] relu(w_k x - w_k breakpoints[k]) for scalars x."""
    first_kernel = np.ones(len(slopes)) if first_kernel is None else np.asarray(first_kernel)
    layers = [(first_kernel[None], -first_kernel * breakpoints), (np.asarray(slopes, float)[:, None], np.zeros(1))]
    return SequentialNet((Dense(len(slopes)),), num_classes=1, activation=activation), as_tree(layers)


def walk_on_a_line(net, *segments):
    """Return the values of each of some segments (start, end)."""
    starts, ends = (jnp.array(points)[:, None] for points in zip(*segments, strict=True))
    norms = segment_gradient_norms(*net, starts=starts, ends=ends)
    return [[value[index].item() for value in norms] for index in range(len(segments))]


def problem(name, activation="relu", dtype=jnp.float32, num_examples=5, convolution="library"):
    """A random network and segments of random length."""
    module = SequentialNet(HIDDEN[name], num_classes=3, activation=ACTIVATIONS[activation], convolution=convolution)
    rng = np.random.default_rng(0)
    starts = rng.uniform(size=(num_examples, 5, 6, 1))
    ends = starts + 5 * rng.uniform(size=(num_examples, 1, 1, 1)) * rng.normal(size=starts.shape)
    shapes = jax.eval_shape(module.init, jax.random.key(0), starts.astype(dtype))["params"]
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape), shapes)
    return module, *jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, starts, ends))


def sampled_norms(module, params, starts, ends, num_points=5000):
    """||grad f_i||_1 by definition, at the middles of equal parts of every segment: (points, examples, outputs)."""
    apply_fn = make_apply_fn(module)

    @jax.jit
    def at(position):
        jacobian = input_jacobian(lambda x: apply_fn(params, x[None])[0], starts + position * (ends - starts))
        return jnp.abs(jacobian).reshape(*jacobian.shape[:2], -1).sum(2)

    return jax.lax.map(at, (jnp.arange(num_points) + 0.5) / num_points, batch_size=1000)


@pytest.mark.usefixtures("x64", "strict_dtypes")
def test_breakpoints_known_by_hand():
    # slopes 2, 2 - 5 = -3, -3 + 4 = 1 after 0.25, 0.5, 0.75; 0 before
    net = on_a_line([2, -5, 4], [0.25, 0.5, 0.75])
    whole, inside, backwards = walk_on_a_line(net, (0.0, 1.0), (0.3, 0.4), (0.6, 0.4))
    supremum, at_start, at_end, change, integral, num_pieces, is_complete, uncounted, logit_size = whole
    assert (supremum, at_start, at_end) == pytest.approx((3, 0, 1), abs=1e-14)
    assert change == pytest.approx(2 * 0.25 - 3 * 0.25 + 0.25, abs=1e-14)
    assert integral == pytest.approx(change, abs=1e-14)
    assert (num_pieces, is_complete, uncounted) == (4, True, 0)
    assert logit_size == pytest.approx(abs(change))  # it is 0 at the start
    assert inside[:7] == pytest.approx([2, 2, 2, 0.2, 0.2, 1, True])
    assert backwards[:7] == pytest.approx([3, 3, 2, 0.1, 0.1, 2, True])


@pytest.mark.usefixtures("x64")
def test_leaky_slopes_by_hand():
    net = on_a_line([1, -1], [0.25, 0.5], activation=jax.nn.leaky_relu)
    [norms] = walk_on_a_line(net, (0.0, 1.0))
    assert norms[:3] == pytest.approx([0.99, 0, 0], abs=1e-14)
    assert norms[5] == 3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("activation", "slope_at_0"), [(jax.nn.relu, 0.0), (jax.nn.leaky_relu, 1.0)])
def test_at_0_the_slope_is_the_one_that_jax_takes(activation, slope_at_0):
    net = on_a_line([3], [0.0], activation=activation)
    [[supremum, at_start, at_end, change, integral, num_pieces, *_]] = walk_on_a_line(net, (0.0, 1.0))
    assert at_start == 3 * slope_at_0
    assert (supremum, at_end, change, integral, num_pieces) == pytest.approx((3, 3, 3, 3, 1))


@pytest.mark.usefixtures("x64")
def test_the_ends_can_miss_what_happens_between_them():
    [[supremum, at_start, at_end, change, *_]] = walk_on_a_line(on_a_line([50, -50], [0.49, 0.51]), (0.0, 1.0))
    assert at_start == at_end == 0 < change  # both ends are flat, and yet the output moves
    assert abs(change) <= supremum == pytest.approx(50)


@pytest.mark.usefixtures("x64")
def test_breakpoints_at_the_same_place_are_one():
    net = on_a_line([1, 1, 1, 1], [0.5] * 4, first_kernel=[1.0, 1.0, -1.0, -3.0])  # 2 (x - 0.5)+ + 4 (0.5 - x)+
    across, from_the_kink = walk_on_a_line(net, (0.0, 1.0), (0.5, 1.0))
    assert across[:8] == [4, 4, 2, -1, -1, 2, True, 0]
    assert from_the_kink[:7] == [2, 0, 2, 1, 1, 1, True]  # slope 0 at the kink itself


@pytest.mark.usefixtures("x64")
def test_the_slope_at_an_end_that_is_a_kink_counts():
    # 5 (x + 1)+ - 5 (x)+ + 5 (-x)+ is constant on both sides of 0, where the last two have slope 0
    net = on_a_line([5, -5, 5], [-1.0, 0.0, 0.0], first_kernel=[1.0, 1.0, -1.0])
    walks = walk_on_a_line(net, (0.0, 1.0), (-0.5, 0.0))
    assert [walk[:7] for walk in walks] == [[5, 5, 0, 0, 0, 1, True], [5, 0, 5, 0, 0, 1, True]]


@pytest.mark.usefixtures("x64", "strict_dtypes")
def test_an_activation_that_another_one_turns_around():
    # h = (x)+ - 2 (x - 0.5)+ rises to its tip at 0.5, where the second layer's (h - 0.5)+ only touches zero
    first = (np.ones((1, 2)), np.array([0.0, -0.5]))
    second = (np.array([[1.0, 1.0], [-2.0, -2.0]]), np.array([-0.5, -0.25]))
    net = SequentialNet((Dense(2), Dense(2)), num_classes=1), as_tree([first, second, (np.ones((2, 1)), np.zeros(1))])
    [[supremum, *_, num_pieces, is_complete, _, _]] = walk_on_a_line(net, (0.0, 1.0))
    assert (supremum, num_pieces, is_complete) == (1, 4, True)  # breakpoints at 0.25, 0.5 and 0.75


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "activation"), [*((name, "relu") for name in HIDDEN), ("convolutions, then dense", "leaky_relu")]
)
def test_it_is_the_largest_of_many_samples_and_closes_the_integral(name, activation):
    module, params, starts, ends = problem(name, activation, dtype=jnp.float64)
    norms = segment_gradient_norms(module, params, starts=starts, ends=ends)
    samples = sampled_norms(module, params, starts, ends)
    assert norms.is_complete.all()
    assert (norms.supremum >= samples.max(0) - 1e-12).all()
    np.testing.assert_allclose(norms.supremum, samples.max(0), rtol=1e-12)  # no short piece is the largest here
    np.testing.assert_allclose(norms.at_start, samples[0], rtol=1e-12)
    np.testing.assert_allclose(norms.at_end, samples[-1], rtol=1e-12)
    apply_fn = make_apply_fn(module)
    np.testing.assert_allclose(norms.change, apply_fn(params, ends) - apply_fn(params, starts), atol=1e-12)
    np.testing.assert_allclose(norms.integral, norms.change, atol=1e-10)
    assert norms.num_pieces.max() > 5 if HIDDEN[name] else (norms.num_pieces == 1).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["dense_relu", "conv_relu"])
def test_the_pieces_are_the_patterns_that_samples_meet(name):
    net = NETS[name]
    params, starts, ends = net.params(), net.inputs(), net.inputs(seed=3) * 2 - 0.5
    norms = segment_gradient_norms(net.module, as_tree(params), starts=jnp.asarray(starts), ends=jnp.asarray(ends))
    positions = (np.arange(5000) + 0.5) / 5000
    for example, (start, end) in enumerate(zip(starts, ends, strict=True)):
        values = start[None] + positions.reshape(-1, *[1] * start.ndim) * (end - start)[None]
        is_new = np.zeros(4999, bool)
        for layer, (kernel, bias) in zip(net.layers[:-1], params[:-1], strict=True):
            before = reference.linear_part(layer, kernel, values) + bias
            values = np.maximum(before, 0)
            is_on = before.reshape(5000, -1) > 0
            is_new |= (is_on[1:] != is_on[:-1]).any(1)
        assert norms.num_pieces[example] == 1 + is_new.sum()


@pytest.mark.parametrize(
    ("name", "with_labels"), [("dense", True), ("convolutions, then dense", False), ("pools", False)]
)
def test_eq_2_holds_in_single_precision(name, with_labels):
    module, params, starts, ends = problem(name, num_examples=40, convolution="patches")
    labels = jnp.arange(40) % 3 if with_labels else None
    norms = segment_gradient_norms(module, params, starts=starts, ends=ends, labels=labels)
    radius = jnp.abs(ends - starts).reshape(40, -1).max(1, keepdims=True)
    assert norms.is_complete.all()
    assert (jnp.abs(norms.change) <= (1 + 1e-5) * radius * norms.supremum).all()
    assert (norms.supremum >= jnp.maximum(norms.at_start, norms.at_end)).all()
    np.testing.assert_allclose(norms.integral, norms.change, atol=1e-5 * float(jnp.abs(norms.change).max()))


def test_single_precision_is_near_double():
    module, params, starts, ends = problem("pools")
    norms = segment_gradient_norms(module, params, starts=starts, ends=ends)
    with jax.enable_x64(True):
        params, starts, ends = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, starts, ends))
        exact = segment_gradient_norms(module, params, starts=starts, ends=ends)
    np.testing.assert_allclose(norms.supremum, np.asarray(exact.supremum), rtol=1e-5)
    np.testing.assert_array_equal(norms.num_pieces, exact.num_pieces)


def test_points_of_few_bits_are_walked_in_float32():
    net, params, starts, ends = problem("dense")
    few = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (starts, ends))
    whole = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), few)
    found, expected = (segment_gradient_norms(net, params, starts=a, ends=b) for a, b in (few, whole))
    assert found.supremum.dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.usefixtures("x64")
def test_margins_are_outputs_of_the_network_that_computes_them():
    module, params, starts, ends = problem("dense", dtype=jnp.float64)
    labels = jnp.array([2, 0, 1, 2, 0])
    norms = segment_gradient_norms(module, params, starts=starts, ends=ends, labels=labels)
    for label in range(3):
        to_margins = jax.nn.one_hot(label, 3, dtype=starts.dtype)[:, None] - jnp.eye(3)
        output = {name: leaf @ to_margins for name, leaf in params["output"].items()}
        expected = segment_gradient_norms(module, {**params, "output": output}, starts=starts, ends=ends)
        for one, other in zip(norms[:-1], expected[:-1], strict=True):  # the last is the size of the logits
            np.testing.assert_allclose(one[labels == label], other[labels == label], atol=1e-12)
        np.testing.assert_array_equal(norms.supremum[labels == label, label], 0)


def test_a_segment_of_no_length_is_one_piece():
    module, params, starts, _ = problem("convolutions, then dense")
    norms = segment_gradient_norms(module, params, starts=starts, ends=starts)
    assert norms.is_complete.all()
    assert (norms.num_pieces == 1).all()
    np.testing.assert_array_equal(norms.change, 0)
    np.testing.assert_array_equal(norms.integral, 0)
    np.testing.assert_array_equal(norms.supremum, norms.at_start)
    np.testing.assert_array_equal(norms.supremum, norms.at_end)


@pytest.mark.usefixtures("x64")
def test_a_walk_that_is_cut_short_says_so_example_by_example():
    module, params, starts, ends = problem("dense", dtype=jnp.float64)
    ends = ends.at[0].set(starts[0])
    whole = segment_gradient_norms(module, params, starts=starts, ends=ends)
    cut = segment_gradient_norms(module, params, starts=starts, ends=ends, max_pieces=3)
    assert cut.is_complete.tolist() == (whole.num_pieces <= 3).tolist()
    assert not cut.is_complete.all()
    np.testing.assert_array_equal(cut.num_pieces, jnp.minimum(whole.num_pieces, 3))
    np.testing.assert_array_equal(cut.at_end, whole.at_end)
    assert (cut.supremum <= whole.supremum).all()
    assert (jnp.abs(cut.integral - cut.change)[~cut.is_complete] > 1e-3).any()


def test_examples_walk_alone_and_are_traced_once():
    module, params, starts, ends = problem("dense")
    num_traces = 0

    @jax.jit
    def along(params, starts, ends):
        nonlocal num_traces
        num_traces += 1
        return segment_gradient_norms(module, params, starts=starts, ends=ends)

    together = along(params, starts, ends)
    np.testing.assert_allclose(along(params, starts[::-1], ends[::-1]).supremum[::-1], together.supremum, rtol=1e-5)
    assert num_traces == 1
    for index in range(2):
        alone = along(params, starts[index, None], ends[index, None])
        np.testing.assert_allclose(alone.supremum[0], together.supremum[index], rtol=1e-5)
        assert alone.num_pieces[0] == together.num_pieces[index]


def test_what_is_refused():
    module, params, starts, ends = problem("dense")
    with pytest.raises(ValueError, match="only a network with relu or leaky_relu"):
        segment_gradient_norms(module.clone(activation=jnp.tanh), params, starts=starts, ends=ends)
    with pytest.raises(ValueError, match="max_pieces=0"):
        segment_gradient_norms(module, params, starts=starts, ends=ends, max_pieces=0)


def test_a_piece_too_short_to_count_is_kept_apart():
    steep = on_a_line([1e6, -1e6], [0.5, 0.500001])  # a step of about 1 within some roundings of the segment
    net = steep[0], jax.tree.map(jnp.float32, steep[1])
    [[supremum, at_start, at_end, change, integral, _, is_complete, uncounted, _]] = walk_on_a_line(net, (0.0, 1.0))
    assert (supremum, at_start, at_end, is_complete) == (0, 0, 0, True)
    assert change > 0.5
    assert uncounted == pytest.approx(integral)
    assert uncounted > 0.5
