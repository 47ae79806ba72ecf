"""Flows of other packages, built as their users build them, and the same functions built from ours.

Each peer samples through its own package's code. Where a builder of ours is given, it copies the
peer's weights, and `benchmarks/speed.py` checks that both give the same poses from the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from propose_prob.conditional import (
    ActNorm,
    ConditionalCoupling,
    ConditionalFlow,
    FixedPermutation,
    LULinearModule,
    StandardBase,
)
from propose_prob.conditional.flows import ComposedTransform, InverseTransform


class Peer(NamedTuple):
    """A flow of another package.

    Attributes:
        package: Its name.
        module: All its parameters.
        sample: Contexts `(B, m)` and noise `(B, S, d)` to events `(B, S, d)`.
        loss: Contexts `(B, m)` and events `(B, d)` to the mean negative log-likelihood.
        ours: Builds the same function from this package's parts, or None.
    """

    package: str
    module: nn.Module
    sample: Callable[[Tensor, Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    ours: Callable[[], ConditionalFlow] | None


def disturb(module: nn.Module, seed: int = 0) -> None:
    """Moves all parameters off their initial values, where flows are the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.is_floating_point():  # FrEIA's permutations
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 / max(1, parameter.shape[-1]) ** 0.5 * noise)


def prohmr(features: int, context: int, *, width: int = 1024, layers: int = 4) -> Peer:
    """The flow of ProHMR as published: nflows' ActNorm, LULinear and additive couplings.

    The networks are nflows' `ResidualNet` of two blocks on value and context concatenated; the
    context is repeated for each sample, and sampling inverts every layer.
    """
    from nflows.nn.nets import ResidualNet
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AdditiveCouplingTransform
    from nflows.transforms.lu import LULinear
    from nflows.transforms.normalization import ActNorm as PeerActNorm
    from nflows.utils import torchutils

    if not hasattr(torch, "triangular_solve"):
        raise RuntimeError("nflows needs torch.triangular_solve, which this torch no longer has")

    class Net(ResidualNet):
        def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
            return super().forward(torch.cat([inputs, context], 1))

    mask = torch.ones(features)
    mask[::2] = -1
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [
            PeerActNorm(features),
            LULinear(features),
            AdditiveCouplingTransform(
                mask.clone(), lambda i, o: Net(i + context, o, width, num_blocks=2)
            ),
        ]
        mask *= -1
    flow = CompositeTransform(parts)
    disturb(flow)
    flow.eval()

    def sample(c: Tensor, noise: Tensor) -> Tensor:
        count = noise.shape[1]
        merged = torchutils.merge_leading_dims(noise, num_dims=2)
        repeated = torchutils.repeat_rows(c, num_reps=count)
        x, _ = flow.inverse(merged, context=repeated)
        return torchutils.split_leading_dim(x, shape=[-1, count])

    def loss(c: Tensor, x: Tensor) -> Tensor:
        z, ladj = flow(x, context=c)
        log_prob = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1) + ladj
        return -log_prob.mean()

    def ours() -> ConditionalFlow:
        transforms = []
        for norm, linear, coupling in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            first, second = _from_nflows_linear(norm, linear, features)
            rest, move = coupling.identity_features, coupling.transform_features
            into, out = _permutations(torch.cat([rest, move]))
            moved = ConditionalCoupling(
                features, context, kind="additive", width=width, blocks=2, activation="relu",
                last_activation=False,
            )  # fmt: skip
            _copy_residual(coupling.transform_net, moved.network, len(rest))
            transforms += [first, second, into, moved, out]
        inverse = InverseTransform(ComposedTransform(transforms))
        return ConditionalFlow(StandardBase(features), inverse).eval()

    return Peer("nflows", flow, sample, loss, ours)


@torch.no_grad()
def _from_nflows_linear(
    norm: nn.Module, linear: nn.Module, features: int
) -> tuple[ActNorm, LULinearModule]:
    ours, lu = ActNorm(features), LULinearModule(features)
    ours.shift.copy_(norm.shift)
    ours.log_scale.copy_(norm.log_scale)
    lower, upper = linear._create_lower_upper()
    lu.lower.copy_(lower)
    lu.upper.copy_(upper)
    lu.log_diagonal.copy_(linear.upper_diag.log())
    lu.shift.copy_(linear.bias)
    return ours, lu


def _permutations(order: Tensor) -> tuple[FixedPermutation, FixedPermutation]:
    """Reorders into `order`, and back."""
    into, out = (FixedPermutation(len(order), seed=0) for _ in range(2))
    for module, new in ((into, order), (out, order.argsort())):
        module.order.copy_(new)
        module.inverse_order.copy_(new.argsort())
    return into, out


@torch.no_grad()
def _copy_residual(theirs: nn.Module, ours: nn.Module, resting: int) -> None:
    first = theirs.initial_layer
    ours.value.weight.copy_(first.weight[:, :resting])
    ours.context.weight.copy_(first.weight[:, resting:])
    ours.context.bias.copy_(first.bias)
    for block, own in zip(theirs.blocks, ours.blocks, strict=True):
        own.first.load_state_dict(block.linear_layers[0].state_dict())
        own.second.load_state_dict(block.linear_layers[1].state_dict())
    ours.output.load_state_dict(theirs.final_layer.state_dict())


def wehrbein(features: int = 48, context: int = 56, *, width: int = 1028, blocks: int = 8) -> Peer:
    """The flow of Wehrbein et al. (ICCV 2021): FrEIA's GLOW couplings with permutations between.

    FrEIA's clamp rounds 2 / pi to 0.636; the exact number is given instead, at the same cost, so
    that both flows are one function.
    """
    import FrEIA.framework as framework
    import FrEIA.modules as modules

    clamp = 2.0

    def net(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))

    flow = framework.SequenceINN(features)
    for i in range(blocks):
        flow.append(
            modules.GLOWCouplingBlock,
            cond=0,
            cond_shape=(context,),
            subnet_constructor=net,
            clamp=clamp,
            clamp_activation=lambda u: (2 / math.pi) * torch.atan(u),
        )
        flow.append(modules.PermuteRandom, seed=i)
    disturb(flow)
    flow.eval()

    def sample(c: Tensor, noise: Tensor) -> Tensor:
        count = noise.shape[1]
        repeated = c.repeat_interleave(count, 0)
        x, _ = flow(noise.flatten(0, 1), c=[repeated], rev=True)
        return x.unflatten(0, (-1, count))

    def loss(c: Tensor, x: Tensor) -> Tensor:
        z, ladj = flow(x, c=[c])
        log_prob = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1) + ladj
        return -log_prob.mean()

    def ours() -> ConditionalFlow:
        transforms = []
        for block, permute in zip(flow.module_list[::2], flow.module_list[1::2], strict=True):
            half = block.split_len1
            for swap, network in ((True, block.subnet2), (False, block.subnet1)):
                coupling = ConditionalCoupling(
                    features, context, swap=swap, width=width, blocks=0, clamp=clamp,
                    activation="relu",
                )  # fmt: skip
                _copy_glow(network, coupling, clamp, half if swap else features - half)
                transforms.append(coupling)
            transforms.append(_permutations(permute.perm)[0])
        inverse = InverseTransform(ComposedTransform(transforms))
        return ConditionalFlow(StandardBase(features), inverse).eval()

    return Peer("FrEIA", flow, sample, loss, ours)


@torch.no_grad()
def _copy_glow(theirs: nn.Sequential, ours: ConditionalCoupling, clamp: float, moving: int) -> None:
    first, last = theirs[0], theirs[2]
    ours.network.value.weight.copy_(first.weight[:, : ours.resting])
    ours.network.context.weight.copy_(first.weight[:, ours.resting :])
    ours.network.context.bias.copy_(first.bias)
    # Theirs: log-scales, then shifts, and clamp * f(raw); ours: shifts first, and clamp * f(raw /
    # clamp).
    for target, source in (
        (ours.network.output.weight, last.weight),
        (ours.network.output.bias, last.bias),
    ):
        target[:moving].copy_(source[moving:])
        target[moving:].copy_(clamp * source[:moving])


def zuko_nice(
    features: int = 48, context: int = 1024, *, width: int = 1024, layers: int = 4
) -> Peer:
    """`NICE` of zuko with hidden layers of the size of ours: the same sizes, another function."""
    import zuko

    flow = zuko.flows.NICE(
        features, context, transforms=layers, hidden_features=(width, width, width)
    ).eval()
    disturb(flow)

    def sample(c: Tensor, noise: Tensor) -> Tensor:
        # The noise that this distribution draws itself is of the same cost.
        return flow(c).sample((noise.shape[1],))

    def loss(c: Tensor, x: Tensor) -> Tensor:
        return -flow(c).log_prob(x).mean()

    return Peer("zuko", flow, sample, loss, None)


def normflows_spline(
    features: int = 48, context: int = 128, *, width: int = 256, layers: int = 4
) -> Peer:
    """A conditional coupling spline flow, of normflows, as in its documentation."""
    import normflows

    parts: list[nn.Module] = []
    for i in range(layers):
        parts += [
            normflows.flows.CoupledRationalQuadraticSpline(
                features, 2, width, num_context_channels=context, num_bins=8, tail_bound=5,
                reverse_mask=i % 2 == 1,
            ),
            normflows.flows.LULinearPermute(features),
        ]  # fmt: skip
    base = normflows.distributions.DiagGaussian(features, trainable=False)
    flow = normflows.ConditionalNormalizingFlow(base, parts).eval()

    def sample(c: Tensor, noise: Tensor) -> Tensor:
        count = noise.shape[1]
        x, _ = flow.sample(len(c) * count, context=c.repeat_interleave(count, 0))
        return x.unflatten(0, (-1, count))

    def loss(c: Tensor, x: Tensor) -> Tensor:
        return flow.forward_kld(x, c)

    return Peer("normflows", flow, sample, loss, None)
