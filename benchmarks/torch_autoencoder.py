"""The recurrent autoencoder of ser_jax in PyTorch, and its weights copied over: the peer of the timings.

Two forms. `nn.GRU` is what a PyTorch user takes and the fastest there is; it applies the reset gate after the recurrent
product, so it is another function of the same cost (as many products, and a second bias). The other form is the cell of
TensorFlow 1, which ser_jax has, step by step: the same function. Time comes first inside, as PyTorch likes it.
"""

import numpy as np
import torch
from torch import nn


class TF1GRU(nn.Module):
    """Reset before the product: f32[F, B, D], f32[B, H] -> (f32[F, B, H], f32[B, H]).

    What depends on x only is one product over all steps, as in PyTorch's own GRU.
    """

    def __init__(self, d_in, units):
        super().__init__()
        self.units = units
        self.of_x = nn.Linear(d_in, 3 * units)
        self.gates_of_h = nn.Parameter(torch.empty(units, 2 * units))
        self.candidate_of_h = nn.Parameter(torch.empty(units, units))
        for kernel in (self.gates_of_h, self.candidate_of_h):
            nn.init.xavier_uniform_(kernel)

    def forward(self, x, h):
        outputs = []
        for gates_from_x, candidate_from_x in zip(*self.of_x(x).split([2 * self.units, self.units], -1)):
            reset, update = torch.sigmoid(torch.addmm(gates_from_x, h, self.gates_of_h)).chunk(2, -1)
            candidate = torch.tanh(torch.addmm(candidate_from_x, reset * h, self.candidate_of_h))
            h = candidate + update * (h - candidate)
            outputs.append(h)
        return torch.stack(outputs), h


class TorchGRU(nn.GRU):
    """PyTorch's, with states f32[B, H]."""

    def forward(self, x, h):
        outputs, h = super().forward(x, h[None])
        return outputs, h[0]


class Stack(nn.Module):
    """Layers with dropout around each; between two layers one dropout that keeps (1 − p)², as in ser_jax."""

    def __init__(self, cell, d_in, units, layers, dropout):
        super().__init__()
        self.layers = nn.ModuleList(cell(units if i else d_in, units) for i in range(layers))
        self.outside, self.between = nn.Dropout(dropout), nn.Dropout(1 - (1 - dropout) ** 2)

    def forward(self, x, states):
        finals = []
        for i, (layer, state) in enumerate(zip(self.layers, states)):
            x, final = layer((self.between if i else self.outside)(x), state)
            finals.append(final)
        return self.outside(x), finals


class Net(nn.Module):
    """The net of `config` (an AutoencoderConfig with GRU cells and a bidirectional decoder), without frame dropout.

    Args:
      tf1: the same function as ser_jax's, step by step, instead of `nn.GRU`.
    """

    def __init__(self, config, bands, tf1=False):
        super().__init__()
        units, layers, cell = config.units, config.layers, TF1GRU if tf1 else TorchGRU
        self.units, self.depth = units, layers
        self.encoder = Stack(cell, bands, units, layers, config.dropout)
        self.representation = nn.Linear(layers * units, 2 * layers * units)
        self.decoders = nn.ModuleList(Stack(cell, bands, units, layers, config.dropout) for _ in range(2))
        self.output = nn.Linear(2 * units, bands)

    def encode(self, x):
        """f32[B, F, D] -> f32[B, R]."""
        _, finals = self.encoder(x.transpose(0, 1).contiguous(), [x.new_zeros(len(x), self.units)] * self.depth)
        return torch.tanh(self.representation(torch.cat(finals, -1)))

    def forward(self, x):
        """f32[B, F, D] -> its reconstruction, f32[B, F, D]."""
        states = self.encode(x).chunk(2 * self.depth, -1)  # layer 1 forward, layer 1 backward, layer 2 forward, …
        shifted = torch.cat([torch.zeros_like(x[:, :1]), x.flip(1)[:, :-1]], 1).transpose(0, 1).contiguous()
        forward, _ = self.decoders[0](shifted, [state.contiguous() for state in states[0::2]])
        backward, _ = self.decoders[1](shifted.flip(0), [state.contiguous() for state in states[1::2]])
        y = torch.tanh(self.output(torch.cat([forward, backward.flip(0)], -1)))
        return y.flip(0).transpose(0, 1)


def rmse(reconstruction, x):
    return torch.sqrt(torch.mean(torch.square(reconstruction - x)))


def copy_weights(net, params):
    """Fills a `Net` of TF1 cells with the parameters of a ser_jax Autoencoder (nested dicts of arrays)."""
    with torch.no_grad():
        for part, stack in (("encoder", net.encoder), ("forward", net.decoders[0]), ("backward", net.decoders[1])):
            for number, layer in enumerate(stack.layers, 1):
                _copy_cell(layer, params[part][f"layer_{number}"])
        for part in ("representation", "output"):
            _copy_linear(getattr(net, part), params[part]["kernel"], params[part]["bias"])
    return net


def _copy_cell(layer, params):
    gates, candidate = params["gate_kernel"], params["candidate_kernel"]
    features = len(gates) - layer.units
    kernel = np.concatenate([gates[:features], candidate[:features]], 1)
    _copy_linear(layer.of_x, kernel, np.concatenate([params["gate_bias"], params["candidate_bias"]]))
    layer.gates_of_h.copy_(_tensor(gates[features:]))
    layer.candidate_of_h.copy_(_tensor(candidate[features:]))


def _copy_linear(layer, kernel, bias):
    layer.weight.copy_(_tensor(kernel).T)
    layer.bias.copy_(_tensor(bias))


def _tensor(array):
    return torch.from_numpy(np.array(array))
