"""The same numbers, bit for bit: whatever the number of threads, and whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from layer_tools import KERNELS, UNet, assert_close, gradients, random_features

from napari_aprcnn import nn
from trees import finest_tree, random_tree

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.fixture
def threads(kernels):
    """Numbers of threads to try. The reference has torch share its products as it likes: reruns only."""
    before = torch.get_num_threads()
    yield (2, 2) if kernels == "python" else (1, 2, 3, 2)
    torch.set_num_threads(before)


def assert_same_for_any_threads(net, x, stage, threads):
    first = None
    for count in threads:
        torch.set_num_threads(count)
        found = gradients(net, x, stage)
        first = first or found
        for number, (got, expected) in enumerate(zip(found, first, strict=True)):
            assert torch.equal(got, expected), f"tensor {number} differs with {count} threads"


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [((30, 26, 37), (3, 3, 3)), ((3, 200, 200), (3, 3, 3)), ((3, 90, 200), (1, 3, 3)), ((150, 130), (1, 3, 3))],
)
def test_small_unet(kernels, shape, kernel, threads):
    if kernels == "python" and shape[0] == 3:
        shape = (3, 60, 70)
    torch.manual_seed(0)
    stage = nn.Forest(random_tree(shape, 7, 0.01 if len(shape) == 3 else 0.2)).stage(0)
    assert_same_for_any_threads(UNet(kernel), random_features(stage, 1), stage, threads)


@pytest.mark.parametrize("channels", [1, 3, 16, 40])
@pytest.mark.parametrize("name", ["group", "instance", "batch", "batch, evaluated"])
def test_norms(kernels, name, channels):
    """Rows of several parts, in a batch of trees; the last parts are no multiple of anything."""
    trees = [random_tree((40, 37, 35), 1, 0.3), random_tree((90, 73), 2, 0.5)]
    stage = nn.Forest(trees).stage(0)
    norms = {
        "group": lambda: nn.GroupNorm(1, channels, relu=True),
        "instance": lambda: nn.InstanceNorm(channels, affine=True),
    }
    layer = norms[name]() if name in norms else nn.BatchNorm(channels, relu=True)
    layer.train("evaluated" not in name)
    before = torch.get_num_threads()
    try:
        counts = (2, 2) if kernels == "python" else (1, 2, 3, 5)
        assert_same_for_any_threads(layer, random_features(stage, channels), stage, counts)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(40, 40, 20), (2, 160, 180), (9, 90, 40)])
def test_convolution_of_wide_taps(shape, threads):
    """Gradients that reach two cells far, from levels that are cut into slabs."""
    torch.manual_seed(0)
    stage = nn.Forest([random_tree(shape, 3, 0.2), random_tree(shape[::-1], 4, 0.2)]).stage(0)
    assert len(stage.slabs((5, 5, 5))) > len(stage.segments())
    assert_same_for_any_threads(nn.APRConv(2, 3, 5), random_features(stage, 2), stage, threads)


@pytest.mark.parametrize(("inside", "outside"), [(40, 72), (70, 33)])
def test_convolution_of_many_channels(inside, outside, threads):
    """Rows and columns of the gradients are shared out among the threads."""
    torch.manual_seed(0)
    stage = nn.Forest([random_tree((24, 26, 20), 3, 0.2), random_tree((9, 20, 31), 4, 0.2)]).stage(0)
    assert_same_for_any_threads(nn.APRConv(inside, outside, 3), random_features(stage, inside), stage, threads)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 7), (65, 61, 63), (2, 1), (1, 2)])
def test_odd_sizes_run(kernels, shape):
    if kernels == "python" and shape[0] == 65:
        pytest.skip("the reference is slow, and cuts nothing by size")
    forest = nn.Forest(random_tree(shape, 1, 0.001))
    net = UNet() if forest.deepest >= 2 else torch.nn.Sequential(nn.APRConv(1, 4, 3), nn.ReLU(), nn.APRConv(4, 2, 5))
    found = gradients(net, random_features(forest.stage(0), 1), forest.stage(0))
    assert found[0].shape == (forest.stage(0).rows, 2)
    assert all(torch.isfinite(tensor).all() for tensor in found)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_more_banks_than_levels(kernel):
    stage = nn.Forest(random_tree((11, 9, 13), 2)).stage(0)
    many = nn.APRConv(2, 3, kernel, filter_banks=stage.depths + 3)
    few = nn.APRConv(2, 3, kernel, filter_banks=stage.depths)
    with torch.no_grad():
        few.weight.copy_(many.weight[: stage.depths])
        few.bias.copy_(many.bias)
    x = random_features(stage, 2)
    wanted, found = gradients(few, x, stage), gradients(many, x, stage)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
    assert torch.equal(found[2][: stage.depths], wanted[2])
    assert not found[2][stage.depths :].any()


def test_every_bank_is_used_by_its_level_alone():
    """A bank that changes moves the rows of its level, and no others."""
    stage = nn.Forest(random_tree((19, 17, 20), 2)).stage(0)
    layer = nn.APRConv(1, 1, 3, filter_banks=stage.depths)
    x = nn.ParticleTensor(random_features(stage, 1), stage)
    with torch.no_grad():
        before = layer(x).features
        for first, last, depth in stage.segments().tolist():
            layer.weight[depth] += 1
            moved = (layer(x).features != before).flatten()
            layer.weight[depth] -= 1
            assert moved[first:last].any()
            moved[first:last] = False
            assert not moved.any()
            before = layer(x).features


# --- ragged batches -------------------------------------------------------------------------------------------
LAYERS = {
    **{f"convolution {name}": (lambda k=k: nn.APRConv(4, 6, k, filter_banks=2)) for name, k in KERNELS.items()},
    "group norm": lambda: nn.GroupNorm(2, 4),
    "instance norm": lambda: nn.InstanceNorm(4, affine=True),
    "pooling": nn.APRMaxPool,
    "upsampling": nn.APRUpsample,
}


@pytest.mark.parametrize("name", LAYERS)
def test_an_item_does_not_feel_its_batch(name):
    torch.manual_seed(0)
    trees = [
        random_tree((12, 9, 15), 1),
        random_tree((40, 25), 2, 0.1),
        finest_tree((3, 4, 5)),
        random_tree((7, 5, 30)),
    ]
    layer = LAYERS[name]()
    batch = nn.Forest(trees)
    for depth in (0, 1):
        if name == "upsampling" and depth == 0:
            continue
        stages = [nn.Forest(tree).stage(depth) for tree in trees]
        parts = [random_features(stage, 4, seed).requires_grad_() for seed, stage in enumerate(stages)]
        x = torch.cat([part.detach() for part in parts]).requires_grad_()
        out = layer(nn.ParticleTensor(x, batch.stage(depth)))
        grad = torch.randn(out.features.shape)
        out.features.backward(grad)
        for item, (stage, part) in enumerate(zip(stages, parts, strict=True)):
            alone = layer(nn.ParticleTensor(part, stage))
            assert torch.equal(out.item(item), alone.features)
            alone.features.backward(grad[out.stage.starts[item] : out.stage.starts[item + 1]])
            starts = batch.stage(depth).starts
            assert torch.equal(x.grad[starts[item] : starts[item + 1]], part.grad)


def test_batch_norm_counts_every_row_once():
    forest = nn.Forest([random_tree((12, 9, 15), 1), random_tree((40, 25), 2, 0.1)])
    stage = forest.stage(0)
    x = random_features(stage, 3) + 2
    layer = nn.BatchNorm(3, momentum=1.0)
    out = layer(nn.ParticleTensor(x, stage)).features
    assert_close(layer.running_mean, x.double().mean(0))
    assert_close(layer.running_var, x.double().var(0))
    assert_close(out.mean(0), torch.zeros(3))
    assert_close(out.var(0, correction=0), torch.ones(3), 1e-4)
