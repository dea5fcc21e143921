"""Against vectors of the official APR-CNN code (float32, its CPU implementation)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_aprcnn import nn
from napari_aprcnn._kernels.dispatch import instruction_sets
from napari_aprcnn._kernels.particle_stages import pool, upsample
from napari_aprcnn._kernels.particles import fill_tree, restrict_filters
from napari_aprcnn.apr.tree import ParticleTree

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("kernels")]
TREES = ["cr_124", "sphere_diff_dims"]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def device(request, kernels):
    """Where the layers run; on a GPU in full float32, once for all instruction sets of the CPU."""
    if request.param == "cuda" and kernels != instruction_sets()[0]:
        pytest.skip("the same GPU again")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device(request.param, 0) if request.param == "cuda" else torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def load(official_vectors):
    def read(name):
        with np.load(official_vectors / f"{name}.npz", allow_pickle=False) as file:
            return dict(file)

    return read


@pytest.fixture
def tree_named(load):
    def read(name):
        found = load(f"struct_{name}")
        offsets = np.concatenate([[0], found["xz_end_vec"].astype(np.int64)])  # theirs has no row for level 0
        return ParticleTree.from_rows(tuple(found["org_dims_zxy"]), found["y_vec"], offsets)

    return read


def close(got, expected, rtol=1e-4, atol=2e-5):
    np.testing.assert_allclose(
        np.asarray(got.detach().cpu() if isinstance(got, torch.Tensor) else got), expected, rtol=rtol, atol=atol
    )


def rows_of(array, device):
    """[1, channels, rows] to [rows, channels]."""
    return torch.from_numpy(array[0].T.copy()).to(device)


@pytest.mark.parametrize("name", TREES)
def test_structure(load, tree_named, name):
    tree, found = tree_named(name), load(f"struct_{name}")
    assert tree.level_max == found["level_max"]
    cells = tree.cells()
    np.testing.assert_array_equal(np.column_stack([tree.level_max - cells[:, 3], cells[:, :3]]), found["coords"])
    np.testing.assert_array_equal(tree.nodes.x, found["tree_y_vec"])
    np.testing.assert_array_equal(tree.nodes.offsets, found["tree_xz_end_vec"].astype(np.int64))
    forest = nn.Forest(tree)
    for depth in (1, 2, 3):
        stage = forest.stage(depth)
        at = stage.cells().numpy()
        level = stage.finest[0] - at[:, 3]
        np.testing.assert_array_equal(np.column_stack([level, at[:, :3]]), found[f"coords_ld{depth}"])


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("depth", [0, 1])
def test_tree_of_means(load, device, tree_named, name, depth):
    vectors, stage = load(f"filltree_{name}"), nn.Forest(tree_named(name)).stage(depth)
    x = torch.from_numpy(vectors[f"x_ld{depth}"])[:, None].to(device)
    close(fill_tree(x, stage.children(device), stage.node_ranges())[:-1, 0], vectors[f"tree_ld{depth}"])


@pytest.mark.parametrize("banks", [1, 2, 3])
@pytest.mark.parametrize("kernel", ["333", "555", "133"])
def test_restriction(load, device, banks, kernel):
    vectors = load("restrict")
    weight = torch.from_numpy(vectors[f"w_{kernel}_eta{banks}"]).to(device).requires_grad_()
    expected, grad = vectors[f"exp_{kernel}_eta{banks}"], vectors[f"gexp_{kernel}_eta{banks}"]
    # The official 1x3x3 restriction is 2^k too large, as their own note says.
    scale = 2.0 ** np.maximum(np.arange(9) - (banks - 1), 0) if kernel == "133" else np.ones(9)
    scale = scale.reshape(-1, 1, 1, 1, 1, 1).astype(np.float32)
    out = restrict_filters(weight, 9)
    close(out, expected / scale)
    out.backward(torch.from_numpy(grad / scale if kernel != "133" else grad).to(device))
    if kernel != "133":
        close(weight.grad, vectors[f"gw_{kernel}_eta{banks}"])


CONVS = [
    "conv111_cr_124_eta3_ld1",
    "conv333_cr_124_eta1_ld0",
    "conv333_cr_124_eta1_ld1",
    "conv333_cr_124_eta3_ld0",
    "conv333_cr_124_eta3_ld2",
    "conv333_sphere_diff_dims_eta1_ld2",
    "conv333_sphere_diff_dims_eta3_ld1",
    "conv555_sphere_diff_dims_eta1_ld2",
]


@pytest.mark.parametrize("name", CONVS)
def test_convolution(load, device, tree_named, name):
    vectors = load(name)
    weight, bias = torch.from_numpy(vectors["weight"]), torch.from_numpy(vectors["bias"])
    layer = nn.APRConv(weight.shape[2], weight.shape[1], tuple(weight.shape[3:]), filter_banks=weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    layer.to(device)
    stage = nn.Forest(tree_named(str(vectors["aprs"][0]))).stage(int(vectors["level_deltas"][0]))
    x = rows_of(vectors["x"], device).requires_grad_()
    out = layer(nn.ParticleTensor(x, stage)).features
    close(out, vectors["out"][0].T)
    if "grad_out" in vectors:
        out.backward(rows_of(vectors["grad_out"], device))
        close(x.grad, vectors["grad_x"][0].T)
        for got, expected in ((layer.weight.grad, "grad_weight"), (layer.bias.grad, "grad_bias")):
            error = np.abs(got.cpu().numpy() - vectors[expected]).max()
            assert error <= 1e-4 * np.linalg.norm(vectors[expected])


def test_pooling(load, device, tree_named):
    vectors, forest = load("maxpool_cr_124"), nn.Forest(tree_named("cr_124"))
    for depth in range(3):
        stage = forest.stage(depth)
        x = rows_of(vectors[f"x_ld{depth}"], device).requires_grad_()
        out, _ = pool(x, stage.pool_children(device), stage.pool_ranges(), stage.coarser().rows)
        close(out, vectors[f"out_ld{depth}"][0].T)
        out.backward(rows_of(vectors[f"grad_out_ld{depth}"], device))
        close(x.grad, vectors[f"grad_x_ld{depth}"][0].T)


def test_upsampling(load, device, tree_named):
    vectors, forest = load("upsample_cr_124"), nn.Forest(tree_named("cr_124"))
    for depth in (1, 2, 3):
        fine = forest.stage(depth - 1)
        x = rows_of(vectors[f"x_ld{depth}"], device).requires_grad_()
        out = upsample(x, fine.pool_children(device), fine.pool_ranges(), fine.rows)
        close(out, vectors[f"out_ld{depth}"][0].T)
        out.backward(rows_of(vectors[f"grad_out_ld{depth}"], device))
        close(x.grad, vectors[f"grad_x_ld{depth}"][0].T)


@pytest.mark.parametrize(("name", "depths"), [("cr_124", [2]), ("sphere_diff_dims", [1, 2])])
def test_reconstruct_and_sample(load, device, tree_named, name, depths):
    vectors, forest = load(f"recon_sample_{name}"), nn.Forest(tree_named(name))
    for depth in depths:
        stage = forest.stage(depth)
        image = nn.Reconstruct()(nn.ParticleTensor(rows_of(vectors[f"x_ld{depth}"], device), stage))
        close(image, vectors[f"recon_ld{depth}"])
        sampled = nn.Sample()(torch.from_numpy(vectors[f"pix_ld{depth}"]).to(device), stage)
        close(sampled.features.T[None], vectors[f"sampled_ld{depth}"])


def test_whole_unet(load, device, tree_named):
    """A U-Net of the official code: output, gradient of the input and of every parameter."""
    vectors = load("model_aprunet_cr_124")
    net = _SmallUNet()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(torch.from_numpy(vectors[f"param/{name}"]).reshape(parameter.shape))
    net.to(device)
    x = rows_of(vectors["x"], device).requires_grad_()
    out = net(nn.ParticleTensor(x, nn.Forest(tree_named("cr_124")).stage(0))).features
    close(out, vectors["out0"][0].T, rtol=1e-3, atol=1e-4)
    out.backward(rows_of(vectors["grad_out0"], device))
    scale = np.abs(vectors["grad_x"]).max()
    close(x.grad, vectors["grad_x"][0].T, rtol=1e-3, atol=1e-3 * scale)
    for name, parameter in net.named_parameters():
        expected = vectors[f"grad/{name}"].reshape(parameter.shape)
        error = np.linalg.norm(parameter.grad.cpu().numpy() - expected)
        assert error <= 1e-3 * max(np.linalg.norm(expected), 1e-3), name


class _Block(torch.nn.Module):
    def __init__(self, cin, cout, kernel=3, groups=4):
        super().__init__()
        self.conv = nn.APRConv(cin, cout, kernel, filter_banks=2, bias=False)
        self.norm = nn.GroupNorm(groups, cout)

    def forward(self, x):
        return nn.ReLU()(self.norm(self.conv(x)))


class _Two(torch.nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.blocks = torch.nn.Sequential(_Block(cin, cout), _Block(cout, cout))

    def forward(self, x):
        return self.blocks(x)


class _Down(torch.nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = _Two(cin, cout)

    def forward(self, x):
        return self.conv(nn.APRMaxPool()(x))


class _Up(torch.nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.reduce_ch = _Block(cin, cout, 1, groups=cout)
        self.conv = _Two(2 * cout, cout)

    def forward(self, x, skip):
        return self.conv(nn.concatenate([skip, nn.APRUpsample()(self.reduce_ch(x))]))


class _SmallUNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.ModuleList([_Two(1, 4), _Down(4, 8), _Down(8, 16)])
        self.decoder = torch.nn.ModuleList([_Up(16, 8), _Up(8, 4)])
        self.head = nn.APRConv(4, 3, 1, filter_banks=2)

    def forward(self, x):
        first = self.encoder[0](x)
        second = self.encoder[1](first)
        out = self.decoder[0](self.encoder[2](second), second)
        return self.head(self.decoder[1](out, first))
