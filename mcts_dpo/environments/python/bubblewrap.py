"""The command that starts a process in a sandbox of its own: bubblewrap, or none.

bubblewrap (a package of that name; containers/bubblewrap) makes namespaces: the process has no network, its own process
ids, no file but those mounted here, and no environment variable but those set here. It works for root and for ordinary
users where the kernel allows them user namespaces.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mcts_dpo.common.errors import InputError

SandboxKind = Literal["bubblewrap", "none"]
PROGRAM = Path(__file__).parent
"""The folder that holds the program `inside`."""
ALTERNATIVE = "`sandbox: none` runs code without any protection"
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""All environment variables of the code: equal order of sets in every process, libraries without threads."""


@dataclass(frozen=True)
class Command:
    """How to start the first process; its arguments end with the number of a descriptor, which the caller adds.

    arguments:   the program and its arguments.
    environment: all of its environment variables.
    program:     the folder that Python finds `inside` in.
    packages:    folders that Python finds packages in.
    scratch:     the folder of all scratch directories.
    """

    arguments: tuple[str, ...]
    environment: dict[str, str]
    program: str
    packages: tuple[str, ...]
    scratch: str


def plain_command(scratch: str) -> Command:
    """Without a sandbox: the same program as a child of this process."""
    environment = ENVIRONMENT | {"PYTHONPATH": str(PROGRAM)}
    return Command((_python(), *_OPTIONS), environment, str(PROGRAM), _packages(), scratch)


def bubblewrap_command() -> Command:
    """In bubblewrap. Raises InputError if it is not installed."""
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise InputError(
            "sandbox: 'bubblewrap' is not installed (`apt-get install bubblewrap`, or your system's package of that "
            f"name); {ALTERNATIVE}"
        )
    python, packages = _python(), _packages()
    arguments = [bubblewrap, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    arguments += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--clearenv"]
    # The one capability is for mounting the scratch file system; the program gives it up at once.
    arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for folder in ("/lib", "/lib32", "/lib64"):
        if os.path.islink(folder):
            arguments += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            arguments += ["--ro-bind", folder, folder]
    arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for path in (python, os.path.join(sys.base_prefix, "lib"), os.path.join(sys.base_prefix, "lib64")):
        if not path.startswith("/usr/") and os.path.exists(path):
            arguments += ["--ro-bind", path, path]
    inside = []
    for number, folder in enumerate(packages):
        if not folder.startswith("/usr/"):
            arguments += ["--ro-bind", folder, f"/packages/{number}"]
        inside.append(folder if folder.startswith("/usr/") else f"/packages/{number}")
    arguments += ["--ro-bind", str(PROGRAM / "inside"), "/program/inside", "--dir", "/scratch"]
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        arguments += ["--dev-bind", device, device]
    for name, value in (ENVIRONMENT | {"PYTHONPATH": "/program"}).items():
        arguments += ["--setenv", name, value]
    arguments += ["--chdir", "/", "--remount-ro", "/", "--", python, *_OPTIONS]
    return Command(tuple(arguments), {}, "/program", tuple(inside), "/scratch")


_OPTIONS = ("-B", "-s", "-S", "-P", "-m", "inside.zygote")
"""Of Python: write no bytecode, read no site files, and search nothing but the standard library and the program."""


def _python() -> str:
    """The interpreter that the environment of this process was made from."""
    return os.path.realpath(sys.executable)


def _packages() -> tuple[str, ...]:
    """The folders of installed packages that this process uses."""
    installed = {os.path.realpath(folder) for folder in site.getsitepackages()}
    folders = dict.fromkeys(os.path.realpath(folder) for folder in sys.path if folder)
    known = [one for one in folders if one in installed or one.endswith(("/site-packages", "/dist-packages"))]
    return tuple(folder for folder in known if os.path.isdir(folder))
