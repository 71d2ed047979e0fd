"""Are the front ends of ser_jax as quick as the NumPy libraries whose definitions they share?

Protocol: 32 utterances of 5 s, float32 at 16 kHz, to features as numpy arrays. ser_jax takes the batch at once, with its
mask, as a compiled program; the library takes one utterance at a time (librosa `feature.mfcc` for "mfcc"; SciPy
`signal.spectrogram`, as auDeep itself, for "audeep"; windows and `scipy.fft.rfft` for "logmel"); the third is what a
PyTorch user would write for a batch, with the same filters. One core for all three unless --threads says otherwise. First
the numbers of all three are compared.

The last line is the ratio to the library. Under 1, ser_jax is faster.

    python benchmarks/front_ends.py --front-end audeep
"""

import argparse
from pathlib import Path

import timing

RATE = 16_000
LIBRARY = {"mfcc": "librosa", "audeep": "scipy", "logmel": "scipy"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--front-end", choices=sorted(LIBRARY), default="mfcc", help="(default: mfcc)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1, help="cores for all (default: 1)")
    parser.add_argument("--quick", action="store_true", help="two short utterances, two rounds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    facts = timing.machine_facts(threads, ["librosa", "scipy", "torch"])
    if args.quick:
        args.batch, args.seconds, args.rounds = 2, 0.5, 2

    import torch

    torch.set_num_threads(threads)
    speech, library = utterances(args.batch, args.seconds), LIBRARY[args.front_end]
    makers = {"mfcc": (mfcc_of_librosa, mfcc_of_torch), "audeep": (audeep_of_scipy, audeep_of_torch),
              "logmel": (logmel_of_scipy, logmel_of_torch)}[args.front_end]
    candidates = {"ser_jax": of_ser_jax(args.front_end, speech), library: makers[0](speech), "torch": makers[1](speech)}
    check_same({name: call() for name, call in candidates.items()}, library)
    seconds = timing.interleaved(candidates, args.rounds)
    median, audio = timing.medians(seconds), args.batch * args.seconds
    rows = []
    for name in candidates:
        by = timing.ratio(seconds, name, library)
        low, high = timing.spread(seconds, name, library, "cpu")
        rows.append([name, f"{median[name]['wall'] * 1e3:.1f}", f"{median[name]['cpu'] * 1e3:.1f}", f"{by['wall']:.3f}",
                     f"{by['cpu']:.3f}", f"{low:.3f}–{high:.3f}", f"{audio / median[name]['cpu']:.0f}"])
    print(f"{args.front_end} of {args.batch} × {args.seconds:g} s, {args.rounds} rounds")
    timing.report(
        facts, ["front end", "wall ms", "CPU ms", f"wall to {library}", f"CPU to {library}", "quartiles", "× real time (CPU)"],
        rows, {f"ser_jax / {name}, {what}": timing.ratio(seconds, "ser_jax", name)[clock]
               for name in ("torch", library) for clock, what in (("wall", "wall"), ("cpu", "CPU"))},
        args.json, front_end=args.front_end, batch=args.batch, seconds=args.seconds)


def utterances(batch, seconds):
    """f32[batch, T]: gliding tones whose loudness changes by 60 dB, under a little noise."""
    import numpy as np

    random = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = random.uniform(90, 250, (batch, 1)) * (1 + 0.2 * np.sin(2 * np.pi * t))
    phase = 2 * np.pi * np.cumsum(pitch, axis=1) / RATE
    sound = sum(np.sin(k * phase) / k for k in range(1, 9)) * 10 ** (1.5 * np.sin(2 * np.pi * 1.3 * t) - 1.5)
    return (0.2 * sound + 1e-3 * random.standard_normal(sound.shape)).astype(np.float32)


def of_ser_jax(front_end, speech):
    import jax
    import numpy as np

    from ser_jax.audio import audeep, logmel, mfcc

    function = {"mfcc": mfcc.mfcc, "audeep": audeep.spectrogram, "logmel": logmel.logmel}[front_end]
    compiled, mask = jax.jit(lambda x, mask: function(x, mask)[0]), np.ones(speech.shape, bool)
    return lambda: np.asarray(compiled(speech, mask))


# ------------------------------------------------------------------------------------------------ cepstra


def mfcc_of_librosa(speech):
    import librosa
    import numpy as np

    from ser_jax.audio import mfcc

    return lambda: np.stack([
        librosa.feature.mfcc(y=x, sr=RATE, n_mfcc=mfcc.COEFFICIENTS, n_fft=mfcc.WINDOW, hop_length=mfcc.HOP,
                             n_mels=mfcc.MEL_BANDS, pad_mode="reflect").T for x in speech])


def mfcc_of_torch(speech):
    import torch

    from ser_jax.audio import mel, mfcc

    window = torch.hann_window(mfcc.WINDOW)
    filters = torch.tensor(mel.mel_filters(RATE, mfcc.WINDOW, mfcc.MEL_BANDS))
    cosines = torch.tensor(mel.dct_matrix(mfcc.MEL_BANDS, mfcc.COEFFICIENTS))

    def call():
        spectrum = torch.stft(torch.from_numpy(speech), mfcc.WINDOW, mfcc.HOP, window=window, pad_mode="reflect",
                              return_complex=True).transpose(1, 2)  # frames first, as they lie in memory
        bands = (spectrum.real.square() + spectrum.imag.square()) @ filters
        decibels = 10 * bands.clamp_min(mfcc.SMALLEST_POWER).log10()
        decibels = decibels.maximum(decibels.amax((1, 2), keepdim=True) - mfcc.RANGE_DB)
        return (decibels @ cosines).numpy()

    return call


# ------------------------------------------------------------------------------------------------ auDeep's spectrograms


def audeep_of_scipy(speech):
    import numpy as np
    from scipy.signal import get_window, spectrogram

    from ser_jax.audio import audeep, mel

    window = get_window("hann", audeep.WINDOW).astype(np.float32)
    filters = mel.whole_bin_filters(RATE, audeep.WINDOW, audeep.BANDS)

    def one(x):
        x = np.append(x[:1], x[1:] - np.float32(audeep.PREEMPHASIS) * x[:-1])
        magnitude = spectrogram(x, RATE, window, noverlap=audeep.WINDOW - audeep.HOP, mode="magnitude")[2]
        bands = np.square(magnitude).T @ filters
        bands = np.maximum(bands, bands[bands > 0].min())
        decibels = np.maximum(10 * np.log10(bands / bands.max()), -60)
        return 2 * (decibels - decibels.min()) / np.ptp(decibels) - 1

    return lambda: np.stack([one(x) for x in speech])


def audeep_of_torch(speech):
    import torch

    from ser_jax.audio import audeep, mel

    window = torch.hann_window(audeep.WINDOW)
    filters = torch.tensor(mel.whole_bin_filters(RATE, audeep.WINDOW, audeep.BANDS))

    def call():
        x = torch.from_numpy(speech)
        x = torch.cat([x[:, :1], x[:, 1:] - audeep.PREEMPHASIS * x[:, :-1]], 1)
        frames = x.unfold(1, audeep.WINDOW, audeep.HOP)
        spectrum = torch.fft.rfft((frames - frames.mean(2, keepdim=True)) * window)
        bands = (spectrum.real.square() + spectrum.imag.square()) @ filters
        faintest = bands.where(bands > 0, torch.inf).amin((1, 2), keepdim=True)
        decibels = (10 * (bands.maximum(faintest) / bands.amax((1, 2), keepdim=True)).log10()).clamp_min(-60)
        low, high = decibels.amin((1, 2), keepdim=True), decibels.amax((1, 2), keepdim=True)
        return (2 * (decibels - low) / (high - low) - 1).numpy()

    return call


# ------------------------------------------------------------------------------------------------ log-mel energies


def logmel_of_scipy(speech):
    import numpy as np
    import scipy.fft

    from ser_jax.audio.logmel import LogMel

    spec = LogMel()
    window, filters = np.hamming(spec.window).astype(np.float32), spec.filters

    def one(x):
        frames = np.lib.stride_tricks.sliding_window_view(x, spec.window)[::spec.hop]
        spectrum = scipy.fft.rfft(frames * window, spec.fft)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        return np.log(np.maximum(power @ filters, np.float32(spec.floor)))

    return lambda: np.stack([one(x) for x in speech])


def logmel_of_torch(speech):
    import torch

    from ser_jax.audio.logmel import LogMel

    spec = LogMel()
    window, filters = torch.hamming_window(spec.window, periodic=False), torch.tensor(spec.filters)

    def call():
        spectrum = torch.fft.rfft(torch.from_numpy(speech).unfold(1, spec.window, spec.hop) * window, spec.fft)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ filters).clamp_min(spec.floor).log().numpy()

    return call


def check_same(features, library, tolerance=1e-3):
    """Ends the benchmark unless all give the same features."""
    import numpy as np

    for name, values in features.items():
        difference = float(np.abs(values - features[library]).max())
        print(f"same features, {name}: {values.shape}, largest difference to {library} {difference:.1e}")
        if not difference <= tolerance:
            raise SystemExit(f"{name} computes other features: they differ by {difference:.1e}")


if __name__ == "__main__":
    main()
