"""Original corpus archives (`*.tar.gz` and kin, `*.zip`): unpacked once, safely, into a scratch folder."""

import shutil
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

from ser_jax.errors import UserError
from ser_jax.files import canonical_hash
from ser_jax.progress import Progress

SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip")


def stem(path):
    """`train-clean-100.tar.gz` -> `train-clean-100`; None when the name is not that of an archive."""
    name = Path(path).name
    return next((name[:-len(suffix)] for suffix in SUFFIXES if name.endswith(suffix)), None)


def find(folder, stems):
    """Archives in `folder` whose name without suffix is one of `stems`, as {stem: path}, in the order of `stems`."""
    found = {stem(path): path for path in sorted(Path(folder).iterdir()) if stem(path) and path.is_file()}
    return {name: found[name] for name in stems if name in found}


def stamp(paths):
    """Changes when one of the files changes."""
    return canonical_hash([[Path(path).name, size_and_time(path)] for path in paths], length=10)


def size_and_time(path):
    """`size-mtime_ns` of a file, the stamp of restart keys; "absent" where there is none."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return "absent"
    return f"{status.st_size}-{status.st_mtime_ns}"


def scratch_for(source, scratch=None):
    """`scratch`, or `unpacked/` beside the archive(s) of `source` (an archive or a folder of archives)."""
    source = Path(source)
    return Path(scratch) if scratch else (source.parent if source.is_file() else source) / "unpacked"


def unpack(archive, scratch):
    """Unpacks one archive under `scratch` and returns the folder; an archive already unpacked there is not read again.

    The folder gets its final name only when every member is on disk, so a killed run leaves `*.partial`, which the next
    run replaces. Members that would land outside of the folder, absolute links and devices are refused (tar:
    `tarfile.data_filter`, PEP 706) or cannot be made (zip: `ZipFile.extract` drops `..` and makes plain files only).
    Nothing is deleted afterwards: a line on stderr says what may be.

    Args:
      archive: path of the archive.
      scratch: folder to unpack under; one run at a time may use it.

    Raises:
      UserError: broken or dangerous archive, or a disk that is full or read-only.
    """
    archive, scratch = Path(archive), Path(scratch)
    folder = scratch / f"{stem(archive)}-{stamp([archive])}"
    if folder.is_dir():
        return folder
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        progress = Progress(archive.stat().st_size >> 20, f"unpack {archive.name}", unit="MiB")
        with open(archive, "rb") as file, progress:
            if archive.suffix == ".zip":
                with zipfile.ZipFile(file) as members:
                    for member in _watched(members.infolist(), file, progress):
                        members.extract(member, partial)
            else:
                with tarfile.open(fileobj=file, mode="r|*") as tar:
                    tar.extractall(partial, members=_watched(tar, file, progress), filter="data")
        partial.rename(folder)
    except tarfile.FilterError as error:
        raise UserError(f"{archive}: refused, a member would leave the folder it is unpacked into ({error})") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: broken or incomplete archive ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked into {scratch} ({error}); "
                        "name a folder with room by the option scratch") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{archive.name}: unpacked into {folder}; it may be deleted when the corpus is prepared", file=sys.stderr)
    return folder


def _watched(members, file, progress):
    done = 0
    for member in members:
        yield member
        now = file.tell() >> 20
        progress.update(now - done)
        done = now
