"""Small steps of a trainer on one batch, whose losses must fall whatever the model begins with."""

import itertools

import torch


def losses_of_small_steps(trainer, step, *, factor=3e-3, count=5):
    """The total loss of the same batch and the same draws before each of a few small steps."""
    trainer.set_rate(factor)
    batch = trainer._draw()
    trainer._draw = lambda: batch
    totals = []
    for _ in range(count):
        torch.manual_seed(0)
        for generator in trainer.generators().values():
            generator.manual_seed(0)
        totals.append(sum(step().values()))
    return totals


def falls(values):
    return all(after < before for before, after in itertools.pairwise(values))
