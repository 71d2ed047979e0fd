"""The WaveNet of ser_jax in PyTorch, as its users would write it, and its weights copied over: the peer of the timings.

Two forms of one net: `Conv1d` on [B, C, F], and 2-D convolutions of height 1 in channels-last memory.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ser_jax.audio import mfcc


class Net(nn.Module):
    """The net of `config` (a WaveNetConfig), without dropout and normalise_input: f32[B, F, 20] -> logits f32[B, F, K].

    Args:
      channels_last: convolve in 2-D, channels last in memory, instead of in 1-D.
    """

    def __init__(self, config, num_symbols, channels_last=False):
        super().__init__()
        self.channels_last, channels = channels_last, config.channels
        self.front, self.front_norm = self._conv(mfcc.COEFFICIENTS, channels), self._norm(channels)
        self.blocks = nn.ModuleList(Block(self, channels, config.kernel, dilation) for dilation in config.dilations)
        self.head, self.head_norm = self._conv(channels, channels), self._norm(channels)
        self.symbols = self._conv(channels, num_symbols, bias=True)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def _conv(self, c_in, c_out, kernel=1, dilation=1, bias=False):
        padding = kernel // 2 * dilation
        if self.channels_last:
            return nn.Conv2d(c_in, c_out, (1, kernel), padding=(0, padding), dilation=(1, dilation), bias=bias)
        return nn.Conv1d(c_in, c_out, kernel, padding=padding, dilation=dilation, bias=bias)

    def _norm(self, channels):
        return (nn.BatchNorm2d if self.channels_last else nn.BatchNorm1d)(channels, eps=1e-8, momentum=0.01)

    def forward(self, x):
        x = x.transpose(1, 2)
        x = x[:, :, None].contiguous(memory_format=torch.channels_last) if self.channels_last else x.contiguous()
        z = torch.tanh(self.front_norm(self.front(x)))
        skip = 0
        for block in self.blocks:
            out = block(z)
            z, skip = z + out, skip + out
        logits = self.symbols(torch.tanh(self.head_norm(self.head(skip))))
        return (logits[:, :, 0] if self.channels_last else logits).transpose(1, 2)


class Block(nn.Module):
    """Filter and gate are one convolution, as in ser_jax: 3 % quicker than two here too."""

    def __init__(self, net, channels, kernel, dilation):
        super().__init__()
        self.gated, self.gated_norm = net._conv(channels, 2 * channels, kernel, dilation), net._norm(2 * channels)
        self.out, self.out_norm = net._conv(channels, channels), net._norm(channels)

    def forward(self, z):
        filters, gate = self.gated_norm(self.gated(z)).chunk(2, 1)
        return torch.tanh(self.out_norm(self.out(torch.tanh(filters) * torch.sigmoid(gate))))


def ctc_loss(logits, frames, labels, num_labels, blank):
    """Mean over the batch of the negative log-likelihood: f32[B, F, K], int[B], int[B, L], int[B] -> scalar."""
    log_probabilities = functional.log_softmax(logits, -1).transpose(0, 1)
    return functional.ctc_loss(log_probabilities, labels, frames, num_labels, blank=blank, reduction="none").mean()


def copy_weights(net, params, stats):
    """Fills a `Net` with the parameters and running statistics of a ser_jax WaveNet (nested dicts of arrays)."""
    with torch.no_grad():
        for part in ("front", "head"):
            _copy_layer(net, part, params, stats)
        for number, block in enumerate(net.blocks, 1):
            for part in ("gated", "out"):
                _copy_layer(block, part, params[f"block_{number:02d}"], stats[f"block_{number:02d}"])
        _copy(net.symbols, params["symbols"]["kernel"][None])
        net.symbols.bias.copy_(_tensor(params["symbols"]["bias"]))
    return net


def _copy_layer(module, part, params, stats):
    norm, own, running = getattr(module, f"{part}_norm"), params[f"{part}_norm"], stats[f"{part}_norm"]
    _copy(getattr(module, part), params[part]["kernel"])
    norm.weight.copy_(_tensor(own["scale"]))
    norm.bias.copy_(_tensor(own["bias"]))
    norm.running_mean.copy_(_tensor(running["mean"]))
    norm.running_var.copy_(_tensor(running["var"]))


def _copy(conv, kernel):
    conv.weight.copy_(_tensor(kernel).permute(2, 1, 0).reshape(conv.weight.shape))


def _tensor(array):
    return torch.from_numpy(np.array(array))
