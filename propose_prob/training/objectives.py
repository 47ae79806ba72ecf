"""Training losses, one function each.

Shapes: poses are `(B, J, 3)` (any joint set, meters), hypotheses `(L, B, J, 3)`, latents `(B, d)`.
Each function returns a scalar, the mean over the batch. The paper prints sums over joints; means
over joints are used here, so that weights do not depend on the joint set.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..errors import InputError
from ..evaluation.scores import energy_of

#: The gradient of a norm is undefined at zero, which a perfect reconstruction reaches.
_SMOOTHING = 1e-12


def recon3d(pose: Tensor, decoded: Tensor, *, squared: bool = False) -> Tensor:
    """Reconstruction error of 3D poses (ProPose, eq. 4).

    The paper calls it MSE and prints an unsquared norm; that is the default, the mean per-joint
    error in meters. `squared` gives the mean squared distance instead.

    Example:
        >>> pose = torch.zeros(2, 17, 3)
        >>> shifted = pose + torch.tensor([0.0, 0.03, 0.04])
        >>> error, squared = recon3d(pose, shifted), recon3d(pose, shifted, squared=True)
        >>> round(error.item(), 4), round(squared.item(), 4)
        (0.05, 0.0025)
    """
    distance = (pose - decoded).square().sum(-1)
    return distance.mean() if squared else _norm(distance).mean()


def recon2d(p2d: Tensor, decoded: Tensor, visible: Tensor | None = None) -> Tensor:
    """L1 reconstruction error of 2D poses `(B, J, 2)` (ProPose, eq. 6), visible joints only.

    Example:
        >>> p2d, decoded = torch.zeros(1, 2, 2), torch.tensor([[[0.1, 0.2], [9.0, 9.0]]])
        >>> round(recon2d(p2d, decoded, torch.tensor([[True, False]])).item(), 4)
        0.3
    """
    error = (p2d - decoded).abs().sum(-1)
    if visible is None:
        return error.mean()
    weight = visible.to(error.dtype)
    return (error * weight).sum() / weight.sum().clamp_min(1)


def negative_log_likelihood(distribution: Distribution, w: Tensor) -> Tensor:
    """Negative log-likelihood per latent dimension (ProPose, eq. 10).

    Eq. 10 is printed per dimension except for its log-determinant; here the Gaussian terms are
    summed, the log-determinant is taken once, and all of it is divided by `d`.

    Example:
        >>> from propose_prob.distributions.flow import diagonal_normal
        >>> distribution = diagonal_normal(torch.zeros(5, 48), torch.ones(5, 48))
        >>> round(negative_log_likelihood(distribution, torch.zeros(5, 48)).item(), 3)
        0.919
    """
    return -distribution.log_prob(w).mean() / w.shape[-1]


def mode_to_mode(z: Tensor, mu: Tensor) -> Tensor:
    """Distance of the PILGD mean, taken to the base, from the PAGD mean (ProPose, eq. 15).

    Example:
        >>> mode_to_mode(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).item()
        5.0
    """
    return _norm((z - mu).square().sum(-1)).mean()


def best_of_m(hypotheses: Tensor, pose: Tensor, *, k: int) -> Tensor:
    """Error of the mean of the `k` best hypotheses (ProPose, eq. 12).

    Ranked by mean per-joint error. Raises ValueError unless `1 <= k <= L`.

    Example:
        >>> hypotheses = torch.linspace(-0.2, 0.3, 6)[:, None, None, None].expand(6, 1, 17, 3)
        >>> one, two = (best_of_m(hypotheses, torch.zeros(1, 17, 3), k=k).item() for k in (1, 2))
        >>> one < two
        True
    """
    if not 1 <= k <= len(hypotheses):
        raise InputError(f"expected 1 <= k <= {len(hypotheses)} hypotheses, got k = {k}")
    with torch.no_grad():
        error = (hypotheses - pose).norm(dim=-1).mean(-1)
        best = error.topk(k, dim=0, largest=False).indices
    chosen = hypotheses.gather(0, best[..., None, None].expand(-1, -1, *hypotheses.shape[2:]))
    return recon3d(pose, chosen.mean(0))


def random_hypothesis(hypotheses: Tensor, pose: Tensor) -> Tensor:
    """Error of one randomly generated hypothesis (ProPose, eq. 13): the first, draws being iid.

    Example:
        >>> pose = torch.zeros(2, 17, 3)
        >>> hypotheses = torch.tensor([0.1, 0.0])[:, None, None, None].expand(2, 2, 17, 3)
        >>> round(random_hypothesis(hypotheses, pose).item(), 3)
        0.173
    """
    return recon3d(pose, hypotheses[0])


def energy_score(hypotheses: Tensor, pose: Tensor) -> Tensor:
    """Energy score of hypotheses, a proper score: its minimum is at the true distribution.

    The mean of the joints' scores and of the whole pose vector's (divided by the root of J). In
    place of the best of M it stops the distribution from being narrower or wider than the truth,
    and the joints from being independent. Source: Gneiting and Raftery (2007), sec. 4.3.

    Args:
        hypotheses: Independent draws `(S, B, J, 3)`, meters.
        pose: True poses `(B, J, 3)`.

    Returns:
        The mean over the batch, a scalar, meters.

    Raises:
        InputError: If there are fewer than two hypotheses.

    Example:
        >>> truth = torch.randn(2000, 1, 3)
        >>> draws = torch.randn(20, 2000, 1, 3)
        >>> narrow, right, wide = (energy_score(width * draws, truth) for width in (0.3, 1.0, 3.0))
        >>> bool(right < narrow), bool(right < wide)
        (True, True)
    """
    count = len(hypotheses)
    if count < 2:
        raise InputError(f"expected at least 2 hypotheses on axis 0, got {count}")
    scores = energy_of(hypotheses - pose, smoothing=_SMOOTHING)
    return 0.5 * (scores.joints.mean() + scores.pose.mean() / hypotheses.shape[-2] ** 0.5)


def gate(threshold: float, generator: torch.Generator) -> bool:
    """The random gate on the bidirectional loss (ProPose, eq. 14): open when `U(0, 1) >= b`.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> share = sum(gate(0.7, generator) for _ in range(1000)) / 1000
        >>> abs(share - 0.3) < 0.05
        True
    """
    return bool(torch.rand((), generator=generator, device=generator.device) >= threshold)


def discriminator_loss(real_energy: Tensor, fake_energy: Tensor, *, margin: float) -> Tensor:
    """EBGAN's discriminator loss `D(x) + [m - D(x_hat)]^+` (ProPose, eq. 11); energies `(B,)`.

    `x_hat` must be detached by the caller: the generator has its own loss and optimizer.

    Example:
        >>> discriminator_loss(torch.tensor([0.1]), torch.tensor([0.5]), margin=1.0).item()
        0.6...
    """
    return real_energy.mean() + (margin - fake_energy).clamp_min(0).mean()


def generator_loss(fake_energy: Tensor) -> Tensor:
    """EBGAN's generator loss `D(x_hat)` (ProPose, eq. 11); energies `(B,)`.

    Example:
        >>> generator_loss(torch.tensor([0.25, 0.75])).item()
        0.5
    """
    return fake_energy.mean()


def pulling_away(codes: Tensor) -> Tensor:
    """Mean squared cosine between encoder outputs `(B, m)` of a batch (ProPose, eq. 11).

    Part of the generator's loss only. Raises ValueError for a batch of one.

    Example:
        >>> different, alike = pulling_away(torch.eye(3)), pulling_away(torch.ones(3, 4))
        >>> different.item(), alike.item()
        (0.0, 1.0)
    """
    count = len(codes)
    if count < 2:
        raise InputError(f"expected at least 2 codes on axis 0, got {count}")
    unit = torch.nn.functional.normalize(codes, dim=-1)
    cosine = (unit @ unit.mT).square()
    return (cosine.sum() - cosine.diagonal().sum()) / (count * (count - 1))


def kl_to_standard(distribution: Distribution) -> Tensor:
    """KL divergence of diagonal normals from N(0, I) per dimension: the VAE of Table 4.

    Example:
        >>> from propose_prob.distributions.flow import diagonal_normal
        >>> kl_to_standard(diagonal_normal(torch.ones(5, 48), torch.ones(5, 48))).item()
        0.5
    """
    standard = torch.distributions.Normal(0.0, 1.0)
    inner = distribution.base_dist  # type: ignore[attr-defined]
    normal = torch.distributions.Normal(inner.loc, inner.scale)
    return torch.distributions.kl_divergence(normal, standard).mean()


def _norm(square: Tensor) -> Tensor:
    return (square + _SMOOTHING).sqrt()


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of `(B, ...)` over the items that `mask` `(B,)` has; 0 where it has none.

    Example:
        >>> values = torch.tensor([[1.0, 3.0], [torch.nan, 0.0]])
        >>> masked_mean(values, torch.tensor([True, False])).item()
        2.0
    """
    per_item = values.flatten(1).mean(1) if values.dim() > 1 else values
    if mask is None:
        return per_item.mean()
    weight = mask.to(per_item.dtype)
    # Zero times NaN is NaN: what an item without annotation holds must not count at all.
    kept = torch.where(mask, per_item, torch.zeros_like(per_item))
    return kept.sum() / weight.sum().clamp_min(1)


def rotation_error(target: Tensor, predicted: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of rotation matrices `(B, K, 3, 3)` (ProHMR, eq. 8).

    Example:
        >>> from propose_prob.geometry import matrix_from_axis_angle
        >>> turned = matrix_from_axis_angle(torch.tensor([torch.pi, 0.0, 0.0])).expand(1, 24, 3, 3)
        >>> round(rotation_error(torch.eye(3).expand(1, 24, 3, 3), turned).item(), 3)
        0.889
    """
    return masked_mean((target - predicted).square(), mask)


def keypoints2d(
    p2d: Tensor, projected: Tensor, visible: Tensor, mask: Tensor | None = None
) -> Tensor:
    """L1 distance of projected joints `(B, J, 2)` from the seen keypoints (ProHMR, eq. 6).

    Example:
        >>> seen = torch.tensor([[True, False]])
        >>> keypoints2d(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 0.25), seen).item()
        0.5
    """
    weight = visible.to(p2d.dtype)
    error = torch.where(visible, (p2d - projected).abs().sum(-1), torch.zeros_like(weight))
    return masked_mean(error.sum(-1) / weight.sum(-1).clamp_min(1), mask)


def joint_maps(maps: Tensor, p2d: Tensor, visible: Tensor, *, width: float = 0.7) -> Tensor:
    """Cross-entropy of joints' maps from a normal distribution about the seen keypoints.

    Maps learn faster from this than from the distance of their center of mass alone, whose gradient
    all but vanishes while a map is flat (Nibali et al., "Numerical Coordinate Regression with
    Convolutional Neural Networks", 2018).

    Args:
        maps: Logarithms of maps that sum to 1, `(B, J, H, W)`.
        p2d: Keypoints `(B, J, 2)`, -1 and 1 at the borders.
        visible: Which count, `(B, J)` bool.
        width: Standard deviation of the distribution, in pixels of the maps.

    Example:
        >>> p2d, seen = torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool)
        >>> flat = torch.full((1, 1, 8, 8), 1 / 64).log()
        >>> round(joint_maps(flat, p2d, seen).item(), 3)
        4.159
    """
    height, across = maps.shape[-2:]
    size = p2d.new_tensor([across, height])
    place = (torch.where(visible[..., None], p2d, 0) + 1) * 0.5 * size - 0.5
    x = torch.arange(across, device=maps.device) - place[..., :1]
    y = torch.arange(height, device=maps.device) - place[..., 1:]
    along = [(-0.5 * (d / width).square()).softmax(-1) for d in (y, x)]
    entropy = -(along[0][..., :, None] * along[1][..., None, :] * maps).sum((-2, -1))
    weight = visible.to(maps.dtype)
    return (entropy * weight).sum() / weight.sum().clamp_min(1)


def orthogonality(sixd: Tensor) -> Tensor:
    """Mean of `(A^T A - I)^2` over 6D rotations `(..., 6)` (ProHMR, eq. 9).

    `A` has the 6D numbers as its two columns.

    Example:
        >>> orthogonality(torch.tensor([1.0, 0, 0, 0, 1, 0])).item()
        0.0
        >>> orthogonality(torch.tensor([1.0, 0, 0, 1, 0, 0])).item()
        0.5
    """
    columns = sixd.unflatten(-1, (2, 3))
    gram = columns @ columns.mT
    return (gram - torch.eye(2, dtype=sixd.dtype, device=sixd.device)).square().mean()


def lsgan_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Least-squares discriminator loss of scores `(B, n)`: real to 1, fake to 0 (ProHMR, eq. 10).

    What made `fake` must be detached by the caller.

    Example:
        >>> lsgan_discriminator_loss(torch.ones(4, 25), torch.zeros(4, 25)).item()
        0.0
    """
    return ((real - 1).square().sum(-1) + fake.square().sum(-1)).mean()


def lsgan_generator_loss(fake: Tensor) -> Tensor:
    """Least-squares generator loss of scores `(B, n)`: fake to 1 (ProHMR, eq. 10).

    Example:
        >>> lsgan_generator_loss(torch.full((4, 2), 0.5)).item()
        0.5
    """
    return (fake - 1).square().sum(-1).mean()
