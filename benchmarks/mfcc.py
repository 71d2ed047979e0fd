"""Are the cepstra of ser_jax as quick to compute as those of librosa, whose definition they share?

Protocol: 32 utterances of 5 s, float32 at 16 kHz, to 20 cepstra per 32 ms as numpy arrays. ser_jax takes the batch at once,
with its mask, as a compiled program; librosa takes one utterance at a time (`feature.mfcc`, reflecting padding; its
loudness floor is per call); the third is what a PyTorch user would write: torch.stft on the batch and matrix products with
the same filters. One core for all three unless --threads says otherwise. First the numbers of all three are compared.

The last line is the ratio to librosa. Under 1, ser_jax is faster.

    python benchmarks/mfcc.py
"""

import argparse
from pathlib import Path

import timing

RATE = 16_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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

    speech = utterances(args.batch, args.seconds)
    candidates = {"ser_jax": of_ser_jax(speech), "librosa": of_librosa(speech), "torch.stft": of_torch(speech, threads)}
    check_same({name: call() for name, call in candidates.items()})
    seconds = timing.interleaved(candidates, args.rounds)
    median, audio = timing.medians(seconds), args.batch * args.seconds
    rows = []
    for name in candidates:
        by = timing.ratio(seconds, name, "librosa")
        low, high = timing.spread(seconds, name, "librosa", "cpu")
        rows.append([name, f"{median[name]['wall'] * 1e3:.1f}", f"{median[name]['cpu'] * 1e3:.1f}", f"{by['wall']:.3f}",
                     f"{by['cpu']:.3f}", f"{low:.3f}–{high:.3f}", f"{audio / median[name]['cpu']:.0f}"])
    print(f"cepstra of {args.batch} × {args.seconds:g} s, {args.rounds} rounds")
    timing.report(
        facts, ["front end", "wall ms", "CPU ms", "wall to librosa", "CPU to librosa", "quartiles", "× real time (CPU)"], rows,
        {f"ser_jax / {name}, {what}": timing.ratio(seconds, "ser_jax", name)[clock]
         for name in ("torch.stft", "librosa") for clock, what in (("wall", "wall"), ("cpu", "CPU"))},
        args.json, batch=args.batch, seconds=args.seconds)


def utterances(batch, seconds):
    """f32[batch, T]: gliding tones whose loudness changes by 60 dB, under a little noise."""
    import numpy as np

    random = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = random.uniform(90, 250, (batch, 1)) * (1 + 0.2 * np.sin(2 * np.pi * t))
    phase = 2 * np.pi * np.cumsum(pitch, axis=1) / RATE
    sound = sum(np.sin(k * phase) / k for k in range(1, 9)) * 10 ** (1.5 * np.sin(2 * np.pi * 1.3 * t) - 1.5)
    return (0.2 * sound + 1e-3 * random.standard_normal(sound.shape)).astype(np.float32)


def of_ser_jax(speech):
    import jax
    import numpy as np

    from ser_jax.audio.mfcc import mfcc

    compiled, mask = jax.jit(lambda x, mask: mfcc(x, mask)[0]), np.ones(speech.shape, bool)
    return lambda: np.asarray(compiled(speech, mask))


def of_librosa(speech):
    import librosa
    import numpy as np

    from ser_jax.audio import mfcc

    return lambda: np.stack([
        librosa.feature.mfcc(y=x, sr=RATE, n_mfcc=mfcc.COEFFICIENTS, n_fft=mfcc.WINDOW, hop_length=mfcc.HOP,
                             n_mels=mfcc.MEL_BANDS, pad_mode="reflect").T for x in speech])


def of_torch(speech, threads):
    import torch

    from ser_jax.audio import mel, mfcc

    torch.set_num_threads(threads)
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


def check_same(cepstra, tolerance=1e-3):
    """Ends the benchmark unless all give the same cepstra (values are up to some hundred)."""
    import numpy as np

    for name, values in cepstra.items():
        difference = float(np.abs(values - cepstra["librosa"]).max())
        print(f"same cepstra, {name}: {values.shape}, largest difference to librosa {difference:.1e}")
        if not difference <= tolerance:
            raise SystemExit(f"{name} computes other cepstra: they differ by {difference:.1e}")


if __name__ == "__main__":
    main()
