"""Writes sessiond/audit/syscall_tables.py from the kernel's headers for each machine.

Needs gcc and the headers that Debian's packages linux-libc-dev-NAME-cross hold, unpacked:

    apt-get download linux-libc-dev-{alpha,arc,hppa,...}-cross
    for package in *.deb; do dpkg -x $package headers; done
    python packaging/syscall_tables.py headers > sessiond/audit/syscall_tables.py
"""

# ruff: noqa: INP001 -- a script beside the others here

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

# Table -> the machine in the packages, the macros that its headers expect, the first number.
MACHINES = {
    "alpha": ("alpha-linux-gnu", "", 0),
    "generic32": ("arc-linux-gnu", "__BITS_PER_LONG=32", 0),
    "generic64": ("riscv64-linux-gnu", "__riscv_xlen=64 __SIZEOF_POINTER__=8 __LP64__", 0),
    "m68k": ("m68k-linux-gnu", "", 0),
    "mips": ("mips-linux-gnu", "_MIPS_SIM=1 _ABIO32=1", 4000),
    "mips64": ("mips64-linux-gnuabi64", "_MIPS_SIM=3 _ABI64=3", 5000),
    "mips64n32": ("mips64-linux-gnuabin32", "_MIPS_SIM=2 _ABIN32=2", 6000),
    "parisc": ("hppa-linux-gnu", "", 0),
    "sh": ("sh4-linux-gnu", "", 0),
    "sparc": ("sparc64-linux-gnu", "__sparc__", 0),
    "sparc64": ("sparc64-linux-gnu", "__sparc__ __arch64__", 0),
    "x32": ("x86_64-linux-gnux32", "__x86_64__ __ILP32__", 1 << 30),
}
# Numbers from here on are the same on all machines; alpha's are higher by a constant. Lower numbers
# are x86_64's in the table of x32, and the machine's own in the generic tables.
COMMON, ALPHA = 424, 110
X32, OWN = 512, range(244, 260)
# If alpha has two names for a number, the descriptive one.
PREFERRED = ("getxpid", "getxuid", "getxgid", "umount2", "shmat")
HEAD = '''"""System calls by machine; made by packaging/syscall_tables.py, not by hand.

A number, then the names from there on, until the next number.
"""

from typing import Final

TABLES: Final = {
'''
DEFINITION = re.compile(r"#define (__NR\w*|__X32_SYSCALL_BIT) (.+)")


def numbers(headers: Path, machine: str, macros: str) -> dict[int, str]:
    """Return the system calls that a machine's headers define."""
    done = subprocess.run(
        ["gcc", "-E", "-dM", "-undef", "-nostdinc", "-I", headers / "usr" / machine / "include"]
        + [f"-D{macro}" for macro in macros.split()]
        + ["-"],
        input="#include <asm/unistd.h>\n",
        capture_output=True,
        text=True,
        check=True,
    )
    defined = dict(DEFINITION.findall(done.stdout))

    def value(text: str) -> int:
        found = 0
        for part in text.strip("()").split("+"):
            word = part.strip(" ()")
            found += value(defined[word]) if word in defined else int(word, 0)
        return found

    found: dict[int, str] = {}
    for name, text in defined.items():
        if not name.startswith("__NR_") or name.endswith(("_Linux", "_syscalls", "arch_specific")):
            continue
        number, word = value(text), name.removeprefix("__NR_")
        if number not in found or word in PREFERRED:
            found[number] = word
    return found


def table(name: str, found: dict[int, str], first: int) -> str:
    """Write a table as words: a number, then the names from there on, until the next number."""
    words: list[str] = []
    previous = -2
    for number, word in sorted(found.items()):
        index = number - first
        if name == "x32":
            left_out = index < X32
        elif name.startswith("generic") and index in OWN:
            left_out = True
        else:
            left_out = index - (ALPHA if name == "alpha" else 0) >= COMMON
        if left_out:
            continue
        if index != previous + 1:
            words.append(str(index))
        words.append(word)
        previous = index
    lines = textwrap.wrap(" ".join(words), 95, break_long_words=False, break_on_hyphens=False)
    return f'    "{name}": """\n' + "\n".join(lines) + '\n""",\n'


def main() -> None:
    """Write the module to standard output."""
    headers = Path(sys.argv[1])
    sys.stdout.write(HEAD)
    for name, (machine, macros, first) in MACHINES.items():
        sys.stdout.write(table(name, numbers(headers, machine, macros), first))
    sys.stdout.write("}\n")


if __name__ == "__main__":
    main()
