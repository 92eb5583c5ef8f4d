"""Our gradient attacks beside Foolbox and ART: CPU time as a ratio in the same run, and robust accuracy.

LeNet-5, trained here on 10,000 MNIST images, and 1,000 others; linf 0.1, 40 steps. All run on one thread. Ours leave a
sample once it fools and, for the second figure, go on as the others do. `int8` is our attack on the quantized network.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from crosslayer.attack.apgd import Apgd
from crosslayer.attack.attack import Attack
from crosslayer.attack.budget import Budget, Norm
from crosslayer.attack.pgd import Pgd
from crosslayer.attack.sensor import Sensor
from crosslayer.attack.victim import Victim
from crosslayer.core.fixed import Rounding
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.datasets.catalog import load
from crosslayer.execute import exact, reference
from crosslayer.execute.torch import to_torch
from crosslayer.execute.torch_training import fit
from crosslayer.execute.training import Training
from crosslayer.flow import execute
from crosslayer.networks.zoo import network
from crosslayer.quantize.affine import quantize
from crosslayer.simplify.activations import fuse_activations

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they warn of what newer SciPy drops
    import foolbox
    from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

ROUNDS, STEPS, SIZE = 3, 40, 0.1
Run = Callable[[int], Array]
"""seed -> what an attack finds."""


class Logits(torch.nn.Module):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.inner = to_torch(graph).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x, upto="logits")


def our_run(victim: Victim, attack: Attack, x: Array, labels: Array) -> Run:
    budget = Budget(Norm.LINF, SIZE)
    return lambda seed: attack(victim, x, labels, budget, np.random.default_rng(seed))


def foolbox_run(graph: Graph, x: Array, labels: Array) -> Run:
    model = foolbox.PyTorchModel(Logits(graph).eval(), bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(rel_stepsize=2.5 / STEPS, steps=STEPS, random_start=True)

    def run(seed: int) -> Array:
        torch.manual_seed(seed)
        return attack(model, torch.from_numpy(x), torch.from_numpy(labels), epsilons=SIZE)[1].numpy()

    return run


def art_run(graph: Graph, kind: Any, x: Array, labels: Array, **options: Any) -> Run:
    model = PyTorchClassifier(
        Logits(graph).eval(), torch.nn.CrossEntropyLoss(), x.shape[1:], 10, clip_values=(0, 1), device_type="cpu"
    )
    attack = kind(model, norm=np.inf, eps=SIZE, max_iter=STEPS, batch_size=250, verbose=False, **options)

    def run(seed: int) -> Array:
        np.random.seed(seed)  # noqa: NPY002  # ART draws from NumPy's global generator
        return attack.generate(x, np.eye(10, dtype=np.float32)[labels])

    return run


def measured(run: Run, victim: Victim, labels: Array, seed: int) -> tuple[float, float]:
    """CPU seconds, and robust accuracy in per cent."""
    start = time.process_time()
    found = run(seed)
    return time.process_time() - start, 100 * float(1 - victim.fooled(found, labels).mean())


def main() -> None:
    torch.set_num_threads(1)
    data = load("mnist")
    fresh = fuse_activations(network("lenet5", data.shape, 10, 0))
    training = Training(epochs=2, batch=64)
    graph = fit(fresh, data.train.take(slice(0, 10_000)), training, seed=0, progress=lambda items, title, total: items)
    ranges = reference.calibrate(graph, [data.train.real(slice(0, 256))], exact.evaluate)
    x, labels = data.validation.real(slice(0, 1000)), data.validation.labels[:1000]
    sensor = Sensor(low=0.0, high=1.0)
    floats = Victim.of(graph, sensor, execute)
    whole = Victim.of(quantize(graph, ranges, Rounding.DOUBLE), sensor, execute)
    rows: list[tuple[str, str, Victim, Run]] = []
    first_step = 2.5 * SIZE / STEPS
    peers = {
        "PGD": [
            ("Foolbox", foolbox_run(graph, x, labels)),
            (
                "ART",
                art_run(graph, ProjectedGradientDescent, x, labels, eps_step=first_step, num_random_init=1),
            ),
        ],
        "APGD": [("ART", art_run(graph, AutoProjectedGradientDescent, x, labels, eps_step=2 * SIZE, nb_random_init=1))],
    }
    for name, attack in (("PGD", Pgd(steps=STEPS)), ("APGD", Apgd(steps=STEPS))):
        rows.append((name, "ours", floats, our_run(floats, attack, x, labels)))
        rows.append((name, "ours, going on", floats, our_run(floats, replace(attack, stop=False), x, labels)))
        rows.append((name, "ours, int8, going on", whole, our_run(whole, replace(attack, stop=False), x, labels)))
        rows += [(name, peer, floats, run) for peer, run in peers[name]]
    rounds = [[measured(run, victim, labels, seed) for _, _, victim, run in rows] for seed in range(ROUNDS)]
    first = {name: index for index, (name, *_) in reversed(list(enumerate(rows)))}
    print("| attack | by | CPU s | CPU time / ours | robust accuracy, % |")
    print("|---|---|---|---|---|")
    for index, (name, who, _, _) in enumerate(rows):
        seconds = statistics.median(figures[index][0] for figures in rounds)
        ratio = statistics.median(figures[index][0] / figures[first[name]][0] for figures in rounds)
        accuracy = statistics.mean(figures[index][1] for figures in rounds)
        print(f"| {name} | {who} | {seconds:.1f} | {ratio:.2f} | {accuracy:.2f} |", flush=True)


if __name__ == "__main__":
    main()
