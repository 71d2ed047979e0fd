"""Packaging of ser_jax; tool settings are in pyproject.toml. The supported install is an editable clone."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "ser_jax" / "__init__.py").read_text(encoding="utf-8"))[1]

setup(
    name="ser_jax",
    version=VERSION,
    description="Speech-emotion recognition by transfer learning, in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["ser_jax", "ser_jax.*"]),
    package_data={"ser_jax.report": ["*.j2", "*.js"]},
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10,<0.13",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12,<0.13",  # v1 names may still move
        "grain>=0.2.18",
        "array-record",
        "numpy",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources",  # tensorflow-datasets 4.9.10 imports it without naming it
        "transformers>=5,<6",
        "soundfile",
        "soxr",
        "librosa",
        "scipy",
        "scikit-learn",
        "pandas",
        "pyarrow",
        "matplotlib",
        "jinja2",
        "jiwer",
        "rapidfuzz",
        "tqdm",
        "absl-py",
    ],
    extras_require={
        # eSpeak NG, a GPL-3 library, loaded at run time to speak the embedded corpus
        "demo": ["espeakng-loader"],
        # only the official TFDS builders need TensorFlow
        "tfds": ["tensorflow-cpu; sys_platform == 'linux' and platform_machine == 'x86_64'",
                 "tensorflow; sys_platform != 'linux' or platform_machine != 'x86_64'"],
        "beam": ["apache-beam"],  # TED-LIUM's official builder
        "opensmile": ["opensmile"],  # non-commercial licence
        "audeep": ["netCDF4"],  # the data sets of auDeep (.nc); MIT
        "tensorboard": ["tensorboardX"],
        "bench": ["torch"],  # the peer that benchmarks and parity tests compare with
        "dev": ["pytest", "pytest-xdist", "hypothesis", "ruff"],
    },
    entry_points={"console_scripts": ["ser-jax = ser_jax.cli:main"]},
)
