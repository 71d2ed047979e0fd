"""The ConvNet of ser_jax in PyTorch, as its users would write it, and its weights copied over: the peer of the timings.

Biases are where the paper has them, in the layers before the batch-normalisations. Maps are [N, C, time, mel], so that
both frameworks flatten the same numbers; in channels-last memory or not.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    """The net of `config` (a ConvNetConfig) on windows: f32[N, time, mel] -> logits f32[N, K].

    Args:
      channels_last: keep maps channels last in memory.
    """

    def __init__(self, config, num_classes, channels_last=False):
        super().__init__()
        self.channels_last = channels_last
        widths = (1, *config.conv_channels)
        self.convs = nn.ModuleList(nn.Conv2d(*pair, size)
                                   for *pair, size in zip(widths[:-1], widths[1:], config.kernel_sizes))
        self.conv_norms = nn.ModuleList(nn.BatchNorm2d(c, eps=1e-5, momentum=0.1) for c in config.conv_channels)
        time, mel = config.map_sizes[-1]
        widths = (time * mel * widths[-1], *config.dense)
        self.linears = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths[:-1], widths[1:]))
        self.norms = nn.ModuleList(nn.BatchNorm1d(d, eps=1e-5, momentum=0.1) for d in config.dense)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(widths[-1], num_classes)
        self.register_buffer("mean", torch.zeros(config.bands))
        self.register_buffer("deviation", torch.ones(config.bands))
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, x):
        x = ((x - self.mean) / self.deviation)[:, None]
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.conv_norms):
            x = functional.max_pool2d(functional.relu(norm(conv(x))), 2)
        x = x.flatten(1)
        for linear, norm in zip(self.linears, self.norms):
            x = self.dropout(functional.relu(norm(linear(x))))
        return self.head(x)


def copy_weights(net, params, stats):
    """Fills a `Net` with the parameters and running statistics of a ser_jax ConvNet (nested dicts of arrays)."""
    with torch.no_grad():
        net.mean.copy_(_tensor(stats["input"]["mean"]))
        net.deviation.copy_((_tensor(stats["input"]["var"]) + 1e-5).sqrt())
        layers = [*zip(net.convs, net.conv_norms), *zip(net.linears, net.norms)]
        for number, (layer, norm) in enumerate(layers, 1):
            own, running = params[f"layer_{number}"], stats[f"layer_{number}"]["norm"]
            if number <= len(net.convs):
                layer.weight.copy_(_tensor(own["conv"]["kernel"]).permute(3, 2, 0, 1))
            else:
                kernel = _tensor(own["dense"]["kernel"])
                if number == len(net.convs) + 1:  # flattened [time, mel, channel] here, [channel, time, mel] there
                    channels = net.convs[-1].out_channels
                    kernel = kernel.reshape(-1, channels, kernel.shape[-1]).transpose(0, 1).reshape(kernel.shape)
                layer.weight.copy_(kernel.T)
            layer.bias.copy_(_tensor(own["norm"]["input_bias"]))
            norm.weight.copy_(_tensor(own["norm"]["scale"]))
            norm.bias.copy_(_tensor(own["norm"]["bias"]))
            norm.running_mean.copy_(_tensor(running["mean"]))
            norm.running_var.copy_(_tensor(running["var"]))
        net.head.weight.copy_(_tensor(params["head"]["kernel"]).T)
        net.head.bias.copy_(_tensor(params["head"]["bias"]))
    return net


def _tensor(array):
    return torch.from_numpy(np.array(array))
