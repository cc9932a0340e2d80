"""The step of `crates/reparam-kernels/benches/recurrent.rs` with torch.nn: milliseconds, padded and packed.

The numbers differ from those of the benchmark, the shapes do not. The packing itself is not timed. Padding and packing have
to give the same states.
"""

import argparse
import time

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

SEQUENCES, INPUT = 32, 256
LENGTHS = [20 + i * 7919 % 41 for i in range(SEQUENCES)]
LAYERS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


def measure(run, steps, clock):
    """Median and least time of a step in milliseconds."""
    times = []
    for _ in range(steps):
        started = clock()
        run()
        times.append((clock() - started) * 1e3)
    times.sort()
    return times[len(times) // 2], times[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", choices=LAYERS, default="lstm")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu", action="store_true", help="time of the processor, on one thread, for a machine in use")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1 if arguments.cpu else arguments.threads)
    clock = time.thread_time if arguments.cpu else time.perf_counter
    layer = LAYERS[arguments.layer](INPUT, arguments.hidden)
    padded = pad_sequence([torch.randn(length, INPUT) for length in LENGTHS]).requires_grad_()
    gradient = pad_sequence([torch.randn(length, arguments.hidden) for length in LENGTHS])
    packed = pack_padded_sequence(padded.detach(), LENGTHS, enforce_sorted=False)
    data = packed.data.clone().requires_grad_()
    packed = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
    packed_gradient = pack_padded_sequence(gradient, LENGTHS, enforce_sorted=False).data

    with torch.no_grad():
        states, _ = pad_packed_sequence(layer(packed)[0])
        mask = gradient != 0
        torch.testing.assert_close(layer(padded)[0] * mask, states * mask, rtol=1e-4, atol=1e-5)

    def clear():
        layer.zero_grad(set_to_none=True)
        padded.grad = data.grad = None

    def run_padded():
        clear()
        layer(padded)[0].backward(gradient)

    def run_packed():
        clear()
        layer(packed)[0].data.backward(packed_gradient)

    for name, run in [("padded", run_padded), ("packed", run_packed)]:
        median, least = measure(run, arguments.steps, clock)
        print(f"{arguments.layer} {arguments.hidden} {name}: median {median:.2f} ms, least {least:.2f} ms")


if __name__ == "__main__":
    main()
