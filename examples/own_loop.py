"""Sparse training in a loop of your own, and what a step of it costs.

python examples/own_loop.py
"""

import torch

import nettime


def main(steps: int = 60) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU(),
        torch.nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    sparsifier = nettime.sparsify(
        model, optimizer, "rigl", density=0.1, update_interval=10, total_steps=steps
    )
    inputs = torch.randn(512, 64)
    labels = (inputs @ torch.randn(64, 10)).argmax(1)
    for step in range(steps):
        batch = slice(step * 64 % 512, step * 64 % 512 + 64)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        sparsifier.step()
    print(f"loss {loss.item():.3f} at density {sparsifier.density:.3f}")

    masks = sparsifier.masks()
    dense = nettime.workload(model, inputs[:64])
    sparse = nettime.workload(model, inputs[:64], masks)
    for name in ("ideal", "wafer"):
        device = nettime.load_device(name)
        gain = device.estimate(dense).seconds / device.estimate(sparse).seconds
        print(f"{name}: a step is {gain:.2f} times as fast as dense")
    print(nettime.load_device("wafer").estimate(sparse))


if __name__ == "__main__":
    main()
