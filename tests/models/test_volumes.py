"""Networks for volumes: counts, the same numbers in every form, the receptive field, what is refused."""

from __future__ import annotations

import os
import sys
import threading
import weakref

import numpy as np
import pytest
import torch

from napari_aprcnn import nn
from napari_aprcnn._kernels import waiting
from napari_aprcnn._kernels.dispatch import extension
from napari_aprcnn._kernels.waiting import put_back_zeros
from napari_aprcnn.errors import CancelledError, ConfigError, ImageError, StageError, WeightsError
from napari_aprcnn.models.cards import ModelCard
from napari_aprcnn.models.devices import resolve_device
from napari_aprcnn.models.volume_config import VolumeNetConfig, describe, halo, multiply_adds, receptive_radius
from napari_aprcnn.models.volume_layers import VoxelConv
from napari_aprcnn.models.volume_network import VolumeNetwork
from napari_aprcnn.models.volumes import VolumeNet, move_weights, share_weights
from napari_aprcnn.nn import waiting as skips
from trees import finest_tree, random_tree

HEADS = ("three_class", "flows", "stardist")


def dense(out):
    return nn.Reconstruct()(out) if isinstance(out, nn.ParticleTensor) else out


def rows_of(tree, channels=1, seed=0):
    values = torch.randn(len(tree), channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return nn.ParticleTensor.from_trees(tree, values, dtype=torch.float64)


@pytest.mark.parametrize(("banks", "count"), [(3, 3_975_171), (1, 1_326_147)])
def test_parameters_of_the_papers_unet(banks, count):
    """APR-CNN: C = 16, depth 3, three classes."""
    net = VolumeNet(VolumeNetConfig(filter_banks=banks))
    assert sum(p.numel() for p in net.parameters()) == count
    assert sum(p.numel() for p in net.to_form(0).parameters()) == 1_326_147


def test_decreasing_banks():
    specs = {s.key: s for s in describe(VolumeNetConfig(filter_banks=3, decreasing_banks=True))}
    assert [specs[f"encoder.{i}.first.conv"].banks for i in range(4)] == [3, 2, 1, 1]
    assert specs["decoder.1.first.conv"].banks == 2
    VolumeNet(VolumeNetConfig(channels=2, decreasing_banks=True))


def test_description_is_the_network():
    for head in HEADS:
        for block in ("plain", "residual"):
            config = VolumeNetConfig(channels=2, head=head, block=block, particle_stages=2, in_channels=2)
            net = VolumeNet(config)
            assert {s.key for s in describe(config)} == {
                name.removesuffix(".weight") for name, p in net.named_parameters() if p.ndim > 1
            }
            for spec in describe(config):
                layer = net.get_submodule(spec.key)
                assert isinstance(layer, nn.APRConv) == spec.particles
                assert layer.weight.numel() == spec.banks * spec.taps * spec.inside * spec.outside


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("block", ["plain", "residual"])
@pytest.mark.parametrize("norm", ["group", "batch", "instance", "none"])
def test_every_form_computes_the_same_where_all_particles_are_voxels(head, block, norm):
    torch.manual_seed(0)
    shape = (17, 22, 13)
    net = VolumeNet(VolumeNetConfig(channels=2, head=head, block=block, norm=norm, rays=8)).double()
    x = torch.randn(2, 1, *shape, dtype=torch.float64)
    rows = nn.ParticleTensor.from_trees([finest_tree(shape)] * 2, x.reshape(-1, 1), dtype=torch.float64)
    expected = net.to_form(0).double()(x)
    assert expected.shape[2:] == ((9, 11, 7) if head == "stardist" else shape)
    for stages in (None, 1, 2, 3):
        found = dense(net.to_form(stages).double()(rows))
        assert (found - expected).abs().max() < 1e-9, f"{stages} particle stages"


def test_single_precision_agrees_to_1e_4():
    torch.manual_seed(1)
    shape = (24, 33, 20)
    net = VolumeNet(VolumeNetConfig(head="flows"))
    x = torch.randn(1, 1, *shape)
    rows = nn.ParticleTensor.from_trees(finest_tree(shape), x.reshape(-1, 1))
    expected = net.to_form(0)(x)
    for stages in (None, 1, 2, 3):
        assert (dense(net.to_form(stages)(rows)) - expected).abs().max() < 1e-4


def test_more_banks_of_restricted_kernels_compute_the_same():
    torch.manual_seed(0)
    rows = rows_of(random_tree((40, 30, 35), 3, 0.05))
    assert rows.stage.depths > 3
    one = VolumeNet(VolumeNetConfig(channels=2, filter_banks=1)).double()
    three = one.to_form(None, filter_banks=3).double()
    assert sum(p.numel() for p in three.parameters()) > 2 * sum(p.numel() for p in one.parameters())
    assert (three(rows).features - one(rows).features).abs().max() < 1e-9
    # And back: what is dropped is what was added.
    again = three.to_form(None, filter_banks=1)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), one.parameters(), strict=True))


def test_weights_of_another_network_do_not_move():
    small, large = VolumeNetConfig(channels=2), VolumeNetConfig(channels=4)
    with pytest.raises(WeightsError, match="differ in"):
        move_weights(VolumeNet(small).state_dict(), small, large)


def test_another_head_starts_from_the_same_body():
    flows = VolumeNet(VolumeNetConfig(channels=2, head="flows", in_channels=2))
    stars = VolumeNet(VolumeNetConfig(channels=2, head="stardist", rays=8, in_channels=2, filter_banks=1))
    fresh = {key: value.clone() for key, value in stars.state_dict().items()}
    shared = share_weights(flows.state_dict(), flows.config, fresh, stars.config)
    stars.load_state_dict(shared)
    for key, value in shared.items():
        if key.startswith("head."):
            assert torch.equal(value, fresh[key])
        elif key.endswith("conv.weight"):
            assert torch.equal(value, flows.state_dict()[key][:1])
        elif key in flows.state_dict():
            assert torch.equal(value, flows.state_dict()[key])
    again = share_weights(flows.state_dict(), flows.config, flows.state_dict(), flows.config)
    assert all(torch.equal(again[key], value) for key, value in flows.state_dict().items())
    wide = VolumeNet(VolumeNetConfig(channels=4, head="flows", in_channels=2))
    with pytest.raises(WeightsError, match="convolutions in common"):
        share_weights(flows.state_dict(), flows.config, wide.state_dict(), wide.config)


@pytest.mark.parametrize(("depth", "radius"), [(1, 8), (2, 20), (3, 44), (4, 92)])
def test_receptive_field(depth, radius):
    """What the code computes, against the gradient of a network whose every weight is one."""
    config = VolumeNetConfig(channels=1, depth=depth, particle_stages=0, norm="none")
    assert receptive_radius(config) == radius
    net = VolumeNet(config).double()
    for name, p in net.named_parameters():
        torch.nn.init.constant_(p, 0.0 if name.endswith("bias") else 0.1)
    for pool in net.modules():  # the largest of a window hides the others
        if type(pool).__name__ == "MaxPool":
            pool.forward = lambda x: torch.nn.functional.avg_pool3d(x, (1, 1, 2), ceil_mode=True)
    period, reach = 2**depth, halo(config)
    n = 2 * (reach.before + reach.after) + period
    n += -n % period
    before = after = 0
    for at in range(n // 2, n // 2 + period):
        x = torch.ones(1, 1, 1, 1, n, dtype=torch.float64, requires_grad=True)
        net(x)[0, 0, 0, 0, at].backward()
        seen = x.grad.flatten().nonzero().flatten()
        before, after = max(before, at - int(seen[0])), max(after, int(seen[-1]) - at)
    assert (before, after) == (reach.before, reach.after)


def test_planar_networks_look_at_one_plane():
    config = VolumeNetConfig(channels=2, planar=True)
    assert all(spec.kernel[0] == 1 for spec in describe(config))
    torch.manual_seed(0)
    net, shape = VolumeNet(config).double(), (1, 40, 27)
    x = torch.randn(1, 1, *shape, dtype=torch.float64)
    rows = nn.ParticleTensor.from_trees(finest_tree(shape), x.reshape(-1, 1), dtype=torch.float64)
    assert (dense(net(rows)) - net.to_form(0).double()(x)).abs().max() < 1e-9


@pytest.mark.parametrize("stages", [None, 2])
def test_batches_of_several_images(stages):
    torch.manual_seed(0)
    shapes = [(20, 24, 28)] * 2 if stages else [(20, 24, 28), (9, 40, 33)]
    trees = [random_tree(shape, seed, 0.1) for seed, shape in enumerate(shapes)]
    net = VolumeNet(VolumeNetConfig(channels=2, particle_stages=stages)).double()
    singles = [rows_of(tree, seed=i) for i, tree in enumerate(trees)]
    both = nn.ParticleTensor.from_trees(trees, [s.features for s in singles], dtype=torch.float64)
    out = net(both)
    for i, single in enumerate(singles):
        assert (out.item(i) - net(single).features).abs().max() < 1e-9


def test_gradients_reach_every_parameter():
    rows = rows_of(random_tree((40, 30, 35), 3, 0.05))
    for stages in (None, 2):
        net = VolumeNet(VolumeNetConfig(channels=2, head="stardist", rays=4, particle_stages=stages)).double()
        net(rows).features.square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_multiply_adds():
    config = VolumeNetConfig(channels=1, depth=1, filter_banks=1)
    convs = 27 * (1 + 1) * 100 + 27 * (2 + 4) * 10 + 2 * 10 + 27 * (2 + 1) * 100 + 3 * 100
    assert multiply_adds(config, (100, 10)) == convs


def test_what_is_refused():
    with pytest.raises(ConfigError, match="particle_stages"):
        VolumeNetConfig(depth=2, particle_stages=4)
    pixel = VolumeNet(VolumeNetConfig(channels=2, particle_stages=0))
    for wrong in (torch.zeros(1, 2, 8, 8, 8), torch.zeros(8, 8, 8), torch.zeros(1, 1, 0, 8, 8)):
        with pytest.raises(ImageError, match="pixel form"):
            pixel(wrong)
    apr = VolumeNet(VolumeNetConfig(channels=2))
    with pytest.raises(ImageError, match="ParticleTensor"):
        apr(torch.zeros(1, 1, 8, 8, 8))
    with pytest.raises(StageError):
        apr.double()(rows_of(finest_tree((3, 4, 4))))
    hybrid = VolumeNet(VolumeNetConfig(channels=2, particle_stages=1)).double()
    trees = [finest_tree((16, 16, 16)), finest_tree((16, 16, 20))]
    rows = nn.ParticleTensor.from_trees(trees, [torch.zeros(len(t), 1) for t in trees], dtype=torch.float64)
    with pytest.raises(StageError, match="shape"):
        hybrid(rows)


@pytest.mark.parametrize("shape", [(1, 8, 3), (4, 8, 3), (8, 8, 3), (24, 8, 3), (8, 8, (1, 3, 3)), (8, 3, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_of_voxels_are_those_of_torch(shape, bias):
    """However few channels there are: results and gradients, and weights by the same names."""
    inside, outside, edge = shape
    kernel = (edge,) * 3 if isinstance(edge, int) else edge
    around = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    torch.manual_seed(0)
    plain = torch.nn.Conv3d(inside, outside, kernel, padding=around, bias=bias)
    ours = VoxelConv(inside, outside, kernel, padding=around, bias=bias)
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(2, inside, 5, 6, 7, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    upstream = torch.randn(2, outside, 5, 6, 7)
    expected, found = plain(x), ours(y)
    expected.backward(upstream)
    found.backward(upstream)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y.grad, x.grad, rtol=1e-4, atol=1e-5)
    for own, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(ours(y.detach()), expected.detach(), rtol=1e-4, atol=1e-5)


def test_narrow_convolutions_take_the_fast_path(monkeypatch):
    """Two to eight input channels are made nine."""
    seen = []
    whole = torch.nn.functional.conv3d

    def noted(x, *rest, **named):
        seen.append(x.shape[1])
        return whole(x, *rest, **named)

    monkeypatch.setattr(torch.nn.functional, "conv3d", noted)
    for inside in (1, 2, 8, 9, 16):
        VoxelConv(inside, 2, 3, padding=1)(torch.zeros(1, inside, 3, 3, 3))
    assert seen == [1, 9, 9, 9, 16]


@pytest.mark.parametrize(("stages", "block"), [(0, "plain"), (None, "plain"), (None, "residual")])
def test_skips_are_let_go_of_as_they_are_used(stages, block):
    """The last step of a block of the decoder finds alive what stages above it still need, and nothing else."""
    config = VolumeNetConfig(channels=4, depth=2, particle_stages=stages, filter_banks=1, block=block)
    net = VolumeNet(config).double().eval()
    kept: list[weakref.ref] = []
    alive: dict[int, int] = {}

    def features(x):
        return x.features if isinstance(x, nn.ParticleTensor) else x

    for encoder in net.encoder:
        last = encoder if block == "residual" else encoder.second
        last.register_forward_hook(lambda _block, _args, out: kept.append(weakref.ref(features(out))))
    for stage, decoder in net.decoder.items():
        count = lambda _block, _args, stage=stage: alive.update({int(stage): sum(ref() is not None for ref in kept)})  # noqa: E731
        last = decoder if block == "residual" else decoder.second
        last.register_forward_pre_hook(count)
    tree = finest_tree((8, 8, 8))
    x = torch.zeros(1, 1, 8, 8, 8, dtype=torch.float64) if stages == 0 else rows_of(tree)
    with torch.inference_mode():
        net(x)
    assert len(kept) == 3
    assert alive == {1: 1, 0: 0}


@pytest.mark.skipif(extension() is None, reason="no compiled kernels")
def test_inference_neither_joins_nor_copies(monkeypatch):
    """On particles: no concatenation, no upsampled features, no neighbour tables of three cells."""
    torch.manual_seed(0)
    net = VolumeNet(VolumeNetConfig(channels=8, depth=2, filter_banks=1)).eval()
    x = nn.ParticleTensor.from_trees(finest_tree((16, 16, 16)), torch.rand(16**3))
    expected = net(x).features.detach()
    x.stage.forest.release()
    monkeypatch.setattr(nn.SkipPair, "joined", None)
    with torch.inference_mode():
        found = net(x).features
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
    tables = {name for depth in range(3) for name, _ in x.stage.forest.stage(depth)._tables}
    assert ("neighbours", (3, 3, 3)) not in tables
    assert {"around", "places_in_coarser"} <= tables


@pytest.mark.skipif(extension() is None, reason="no compiled kernels")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "changes", [{}, {"particle_stages": 2}, {"block": "residual"}, {"head": "stardist"}, {"norm": "batch"}]
)
def test_a_lean_pass_gives_the_same_bits_and_keeps_no_table(changes, half, monkeypatch):
    """Skips wait without their zeros; what they are does not change."""
    monkeypatch.setattr(waiting, "_LEAST", 1 << 10)
    waited = []
    monkeypatch.setattr(skips, "put_back_zeros", lambda x, marks: (waited.append(x.shape), put_back_zeros(x, marks)))
    net = VolumeNet(VolumeNetConfig(**{"channels": 16, "depth": 2, **changes})).eval()
    tree = random_tree((40, 40, 40), 3)
    x = nn.ParticleTensor.from_trees(tree, torch.randn(len(tree), 1, generator=torch.Generator().manual_seed(0)))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        expected = dense(net(x))
        assert x.stage.table_bytes
        assert not waited
        found = net(x, once=True)
        assert not any(x.stage.forest.stage(depth).table_bytes for depth in range(3))
        assert torch.equal(dense(found), expected)
    if sys.platform == "linux" and os.environ.get("MALLOC_MMAP_MAX_") != "0":
        assert waited


def test_a_check_stops_only_the_run_that_it_was_given_to():
    """A network that is kept is shared: what cancels one run must not reach another that runs at the same time."""
    card = ModelCard(
        name="m", architecture="unet", title="t", data="d", licence="CC0", volume=VolumeNetConfig(channels=2, depth=1)
    )
    network = VolumeNetwork(VolumeNet(card.volume), card, device=resolve_device("cpu", threads=1))
    image = np.random.default_rng(0).integers(0, 1000, (6, 8, 8)).astype(np.uint16)
    inside, go, found, asked = threading.Event(), threading.Event(), [], []

    def wait():
        asked.append(threading.get_ident())
        inside.set()
        if threading.current_thread() is first:
            go.wait(20)

    first = threading.Thread(target=lambda: found.append(network.predict(image, check=wait)))
    first.start()
    assert inside.wait(20)

    def stop():
        raise CancelledError("stopped")

    expected = network.predict(image)
    with pytest.raises(CancelledError):
        network.predict(image, check=stop)
    assert set(asked) == {first.ident}
    go.set()
    first.join(20)
    assert np.array_equal(found[0].features, expected.features)
    assert len(asked) > 1
