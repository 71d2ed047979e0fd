"""Miniature LibriSpeech and TED-LIUM in the layout of the original archives, from synthetic signals."""

import io
import tarfile

import numpy as np
import soundfile

RATE = 16_000
SUBSETS = ("train-clean-100", "train-clean-360", "train-other-500",
           "dev-clean", "dev-other", "test-clean", "test-other")


def signal(seconds, seed):
    """int16[T]: a few drifting harmonics under noise, at full 16-bit detail, so that a wrong sample shows."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * (100 + 10 * (seed % 13)) * time * (1 + 0.05 * time)
    x = sum(np.sin(k * phase) / k for k in (1, 2, 3)) + rng.normal(0, 0.05, time.shape)
    return (x / np.abs(x).max() * rng.uniform(9_000, 30_000)).astype(np.int16)


def flac(samples):
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def sphere(samples):
    """NIST SPHERE with a 1024-byte header and big-endian 16-bit PCM, as in TED-LIUM."""
    fields = {"sample_count": len(samples), "sample_n_bytes": 2, "channel_count": 1, "sample_rate": RATE,
              "sample_sig_bits": 16}
    lines = ["NIST_1A", "   1024", *(f"{key} -i {value}" for key, value in fields.items()),
             "sample_byte_format -s2 10", "sample_coding -s3 pcm", "end_head", ""]
    return "\n".join(lines).encode().ljust(1024) + samples.astype(">i2").tobytes()


def readers_of(subset):
    """{reader: sex} of the two readers of one subset."""
    first = 100 + 20 * SUBSETS.index(subset)
    return {first: "F", first + 10: "M"}


def librispeech_files(subset, utterances=2, seconds=1.0):
    """{path in the archive: bytes} of one subset: one female and one male reader, one chapter each."""
    readers = readers_of(subset)
    # As in the original, every archive lists all the readers and chapters.
    speakers = "; reader_id | gender | subset | minutes | name\n" + "".join(
        f"{reader:<4} | {sex} | {name:<16} | 25.00 | |Name; of|{reader}\n"
        for name in SUBSETS for reader, sex in readers_of(name).items())
    chapters = ";ID|READER|MINUTES|SUBSET|PROJ.|BOOK ID|TITLE|PROJECT TITLE\n" + "".join(
        f"{reader + 5} | {reader} | 8.00 | {name} | 1 | 2 | Title | Project\n"
        for name in SUBSETS for reader in readers_of(name))
    files = {"LibriSpeech/SPEAKERS.TXT": speakers.encode(), "LibriSpeech/CHAPTERS.TXT": chapters.encode()}
    for reader in readers:
        folder, lines = f"LibriSpeech/{subset}/{reader}/{reader + 5}", []
        for number in range(utterances):
            identity = f"{reader}-{reader + 5}-{number:04d}"
            files[f"{folder}/{identity}.flac"] = flac(signal(seconds + 0.1 * number, reader + number))
            lines.append(f"{identity} IT'S SENTENCE {'ABCDEF'[number]} OF READER {reader}\n")
        files[f"{folder}/{reader}-{reader + 5}.trans.txt"] = "".join(lines).encode()
    return files


def tedlium_files(root="TEDLIUM_release2", splits=("train", "dev", "test")):
    """{path in the archive: bytes}: two talks per split, with the oddities of the real stm files."""
    files = {}
    for place, split in enumerate(splits):
        for number, sex in enumerate(("female", "male")):
            talk = f"Ann{split.replace('/', '').title()}{sex}_2010"
            # 3.4567 s is no whole number of milliseconds: the last segment ends beyond the last sample.
            samples = signal(3.4567, 7 * place + number)
            old_label = f"F0_{sex[0].upper()}"  # as in release 1, whose lines also end with a key
            lines = [
                f"{talk} 1 {talk} 0.29 1.1 <o,f0,{sex}> so this isn 't segment one",
                f"{talk} 1 inter_segment_gap 1.1 1.13{place}{number} <o,,unknown> ignore_time_segment_in_scoring",
                f"{talk} 1 {talk} 1.1355 2.3339 <{old_label}> caf\u00e9 it is ({talk}-1.13-2.33-{old_label})",
                f"{talk} 1 {talk} 2.3339 3.46 <NA> a (laughter) word",
            ]
            files[f"{root}/{split}/sph/{talk}.sph"] = sphere(samples)
            files[f"{root}/{split}/stm/{talk}.stm"] = ("\n".join(lines) + "\n").encode()
    return files


def write_tree(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_archive(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_300_000_000
            archive.addfile(member, io.BytesIO(data))
    return path
