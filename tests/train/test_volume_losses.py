"""Losses of 3D networks: on particles the same number as on the voxels that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_aprcnn.bench.fields import ellipsoids
from napari_aprcnn.nn import Forest, ParticleTensor
from napari_aprcnn.nn.voxels import dense_items
from napari_aprcnn.segment.flows import flows_from_masks
from napari_aprcnn.segment.three_class import class_shares, three_class_targets
from napari_aprcnn.train.losses import flow_loss
from napari_aprcnn.train.volume_losses import flow_loss_3d, particle_volumes, stardist_loss, three_class_loss
from trees import finest_tree, random_tree

SHAPE = (21, 30, 27)
LABELS = ellipsoids(SHAPE, 7, diameter=12, seed=6)


def rows_and_voxels(tree, channels, seed=0):
    """Random network output on the particles, and its reconstruction."""
    torch.manual_seed(seed)
    x = ParticleTensor.from_trees(tree, torch.randn(len(tree), channels))
    return x, dense_items(x)[0]


def test_volumes_add_up_to_the_image():
    tree = random_tree(SHAPE, share=0.1)
    forest = Forest([tree, random_tree((9, 12, 20))])
    for depth in range(3):
        volumes = particle_volumes(forest.stage(depth))
        assert len(volumes) == forest.stage(depth).rows
        assert volumes.sum() == tree.voxels + 9 * 12 * 20
    assert (particle_volumes(Forest(finest_tree(SHAPE)).stage()) == 1).all()


def test_three_classes_on_particles_are_three_classes_on_voxels():
    tree, classes = random_tree(SHAPE, share=0.1), three_class_targets(LABELS)
    x, dense = rows_and_voxels(tree, 3)
    shares = torch.from_numpy(class_shares(classes, tree.cells()))
    volumes = particle_volumes(x.stage)
    on_rows = three_class_loss(x.features, shares, volumes)
    on_voxels = three_class_loss(dense, torch.from_numpy(classes)[None])
    torch.testing.assert_close(on_rows, on_voxels)
    torch.testing.assert_close(on_voxels, F.cross_entropy(dense, torch.from_numpy(classes.astype(np.int64))[None]))
    # A network that knows single voxels only is far worse than its particles say.
    knows = 5 * shares * (volumes[:, None] == 1)
    assert three_class_loss(knows, shares, volumes) > 1.2 * three_class_loss(knows, shares)


def test_flows_on_particles_have_the_gradient_of_flows_on_voxels():
    tree = random_tree(SHAPE, share=0.1)
    target = np.concatenate([flows_from_masks(LABELS), LABELS[None] > 0]).astype(np.float32)
    sampled = torch.from_numpy(np.stack([tree.sample(channel) for channel in target], axis=1)).float()
    gradients, entropies = [], []
    for kind in ("rows", "voxels"):
        torch.manual_seed(0)
        features = torch.randn(len(tree), 4, requires_grad=True)
        x = ParticleTensor.from_trees(tree, features)
        if kind == "rows":
            flow, entropy = flow_loss_3d(x.features, sampled, particle_volumes(x.stage))
        else:
            flow, entropy = flow_loss_3d(dense_items(x)[0], torch.from_numpy(target)[None])
        (flow + entropy).backward()
        gradients.append(features.grad)
        entropies.append(entropy.detach())
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(entropies[0], entropies[1])


def test_one_slice_of_the_flow_loss_is_that_of_planes():
    torch.manual_seed(1)
    output, target = torch.randn(2, 4, 1, 8, 9), torch.rand(2, 4, 1, 8, 9)
    output[:, 0], target[:, 0] = 0, 0  # no flow along z
    flow, entropy = flow_loss_3d(output, target)
    plane = torch.cat([target[:, 1:, 0], torch.ones(2, 1, 8, 9)], dim=1)
    expected = flow_loss(output[:, 1:, 0], plane)
    torch.testing.assert_close(flow * 3, expected[0] * 2)
    torch.testing.assert_close(entropy, expected[1])


@pytest.fixture
def star():
    torch.manual_seed(2)
    probability = torch.tensor([1.0, 0.5, 0.0, 0.2])
    distances = torch.tensor(
        [[4.0, 6.0], [2.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    )  # the last one has no object at its centre
    return torch.randn(4), distances + torch.tensor([[1.0, -1], [3, 1], [0.5, -0.5], [2, 2]]), probability, distances


def test_star_loss_by_hand(star):
    probability, distance = stardist_loss(*star, background_share=0)
    torch.testing.assert_close(probability, F.binary_cross_entropy_with_logits(star[0], star[2]))
    torch.testing.assert_close(distance, torch.tensor((1 * 1 + 0.5 * 2) / 1.5))
    _, with_background = stardist_loss(*star, background_share=0.1)
    outside = (0.5 * 3.5 + 0.5 + 2) / 4  # by what is missing to a probability of 1
    torch.testing.assert_close(with_background, distance + 0.1 * outside)


def test_star_loss_on_voxels_is_that_on_rows_of_volume_one(star):
    logits, distances, target_prob, target_dist = star
    on_rows = stardist_loss(*star, torch.ones(4))
    on_voxels = stardist_loss(
        logits.view(1, 2, 2, 1),
        distances.T.reshape(1, 2, 2, 2, 1),
        target_prob.view(1, 2, 2, 1),
        target_dist.T.reshape(1, 2, 2, 2, 1),
    )
    for ours, theirs in zip(on_rows, on_voxels, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_row_of_volume_two_counts_as_two_rows(star):
    twice = [torch.cat([part, part[:1]]) for part in star]
    for ours, theirs in zip(stardist_loss(*star, torch.tensor([2.0, 1, 1, 1])), stardist_loss(*twice), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_no_object_and_half_precision_are_finite():
    for dtype in (torch.float32, torch.bfloat16):
        distances = torch.ones(5, 8, dtype=dtype, requires_grad=True)
        loss = sum(stardist_loss(torch.zeros(5, dtype=dtype), distances, torch.zeros(5), torch.zeros(5, 8)))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(distances.grad).all()
        assert distances.grad.abs().max() < 1e-4
