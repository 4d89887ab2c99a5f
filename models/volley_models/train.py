"""Trains the network on simulated markets."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch.nn.functional import cross_entropy

from .network import CnnLstm
from .windows import TRAINING, VALIDATION, Windows

_BATCH = 256
_PEAK_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-3
_GRADIENT_NORM = 1.0


def train(seed: int, member: int, epochs: int, threads: int, weights: Path) -> None:
    """Writes the weights of the epoch that did best on the validation markets to `weights`.

    The members of an ensemble learn from the same markets, those of `seed`; `member` counts from 0, and gives each
    first weights and an order of windows of its own. The same seed, member, thread count, machine type and PyTorch
    give the same weights.
    """
    begin(seed + member, threads)
    training, validation = make_markets(seed)
    network = CnnLstm(*_statistics(training))
    state = fit(network, training, validation, epochs, _PEAK_LEARNING_RATE, seed + member)
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, weights, metadata={"seed": str(seed)})


def begin(seed: int, threads: int) -> None:
    """Makes what follows the same each time."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def make_markets(seed: int) -> tuple[Windows, Windows]:
    """The windows to train on and those to validate by."""
    started = time.monotonic()
    training, validation = TRAINING.make(seed), VALIDATION.make(seed)
    print(f"{len(training)} training and {len(validation)} validation windows in {time.monotonic() - started:.0f} s")
    return training, validation


def fit(
    network: CnnLstm,
    training: Windows,
    validation: Windows,
    epochs: int,
    peak_learning_rate: float,
    order_seed: int,
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Trains `network`, and returns its state after the epoch that did best on the validation windows."""
    started = time.monotonic()
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=_WEIGHT_DECAY)
    batches = len(training) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak_learning_rate, total_steps=epochs * batches)
    shuffle = np.random.default_rng(order_seed)
    best, state = 0.0, {}
    for epoch in range(1, epochs + 1):
        network.train()
        order = shuffle.permutation(len(training))[: batches * _BATCH].reshape(batches, _BATCH)
        total = 0.0
        for which in order:
            _, logits = network(torch.from_numpy(training.inputs(which)))
            loss = cross_entropy(logits, torch.from_numpy(training.labels[which]))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), _GRADIENT_NORM)
            optimiser.step()
            after_step()
            schedule.step()
            total += loss.item()
        accuracy = _accuracy(network, validation)
        print(
            f"epoch {epoch}/{epochs}: loss {total / batches:.4f}, validation accuracy {accuracy:.4f}, "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
        if accuracy > best:
            best = accuracy
            state = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    return state


def load(weights: Path) -> tuple[CnnLstm, int]:
    """The trained network, ready to evaluate, and the seed it was trained with."""
    with safe_open(weights, framework="numpy") as file:
        seed = int(file.metadata()["seed"])
        state = {name: file.get_tensor(name) for name in file.keys()}
    network = CnnLstm(state["mean"], state["scale"])
    network.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return network.eval(), seed


def _statistics(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    mean = windows.features.mean(axis=(0, 2), dtype=np.float64)
    deviation = windows.features.std(axis=(0, 2), dtype=np.float64)
    return mean.astype(np.float32), (1.0 / deviation).astype(np.float32)


def _accuracy(network: CnnLstm, windows: Windows) -> float:
    network.eval()
    with torch.no_grad():
        answers = [network(torch.from_numpy(batch))[1].argmax(dim=1).numpy() for batch in windows.batches(512)]
    return float((np.concatenate(answers) == windows.labels).mean())
