"""Kernel calls that the sandbox needs and Python 3.11 lacks, by ctypes: namespaces, mounts, capabilities, Landlock.

Every function raises `OSError` with the name of the call that failed. Nothing here decides anything; `child.py` does.
Linux 5.12 or newer for the mount tree (`mount_setattr`), 6.2 or newer for Landlock; x86-64 and arm64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct

MACHINE = os.uname().machine
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE, _MNT_DETACH = -100, 0x8000, 2
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_SYS_MOUNT_SETATTR, _SYS_LANDLOCK = 442, 444
_SYS_PIVOT_ROOT, _SYS_CAPSET = (41, 91) if MACHINE == "aarch64" else (155, 126)


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int, what: str) -> None:
    """One `prctl` call with a number."""
    zero = ctypes.c_ulong(0)
    _check(_LIBC.prctl(option, ctypes.c_ulong(value), zero, zero, zero), what)


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent dies; a change of user id clears it."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, "prctl PDEATHSIG")


def forbid_new_privileges() -> None:
    """Sets `no_new_privs`: no program started from here gains rights."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1, "prctl NO_NEW_PRIVS")


def enter_namespaces() -> bool:
    """Leaves the namespaces of the host; the next child is the first process of a new process namespace.

    Root moves without a user namespace, so that it can change to an unused user id afterwards. Everybody else, and
    a root that may not, gets a user namespace of its own.

    Returns:
        Whether a user namespace was made.
    """
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    if os.geteuid() == 0 and _LIBC.unshare(flags) == 0:
        return False
    uid, gid = os.geteuid(), os.getegid()
    _check(_LIBC.unshare(flags | CLONE_NEWUSER), "unshare")
    for file, text in (("setgroups", "deny"), ("uid_map", f"65534 {uid} 1"), ("gid_map", f"65534 {gid} 1")):
        with open(f"/proc/self/{file}", "w") as out:
            out.write(text)
    return True


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """One `mount` call."""
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    data = None if options is None else options.encode()
    _check(_LIBC.mount(*encoded, ctypes.c_ulong(flags), data), f"mount {target}")


def bind_read_only(source: str, target: str, *, devices: bool = False) -> None:
    """Binds a file or a folder, with all that is mounted below it, and makes it read-only."""
    mount(source, target, None, MS_BIND | MS_REC)
    make_read_only(target, devices=devices, recursive=True)


def make_read_only(target: str, *, devices: bool = False, recursive: bool = False) -> None:
    """Makes a mount read-only, without set-user-id programs and without devices (or with them)."""
    attributes = struct.pack("QQQQ", _ATTR_RDONLY | _ATTR_NOSUID | (0 if devices else _ATTR_NODEV), 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    result = _LIBC.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, target.encode(), flags, attributes, ctypes.c_size_t(32)
    )
    _check(result, f"mount_setattr {target}")


def change_root(folder: str) -> None:
    """Makes `folder` the root and lets go of the old one."""
    os.chdir(folder)
    _check(_LIBC.syscall(_SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    _check(_LIBC.umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")


def drop_bounding_set() -> None:
    """Empties the set of capabilities that this process could ever have again."""
    for capability in range(64):
        try:
            prctl(_PR_CAPBSET_DROP, capability, "prctl CAPBSET_DROP")
        except OSError:
            break  # past the last capability, or without the right to drop


def drop_capabilities() -> None:
    """Empties this process's own sets of capabilities."""
    header, empty = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _check(_LIBC.syscall(_SYS_CAPSET, header, empty), "capset")


def require_landlock() -> None:
    """Raises unless this kernel has Landlock 3 (Linux 6.2), the first that guards files against truncation."""
    version = int(_LIBC.syscall(_SYS_LANDLOCK, None, ctypes.c_size_t(0), 1))
    if version < 3:
        raise OSError(errno.ENOSYS, f"landlock: version {max(version, 0)}, 3 is needed")


def restrict_files(readable: list[str], writable: str) -> None:
    """Landlock: from now on only `readable` can be read and only `writable` can be changed.

    Needs `no_new_privs`. It does not hide that a file exists (`stat` still answers), and does not guard modes, owners
    and times of files; see `seccomp.CHANGES`.
    """
    every = (1 << 15) - 1  # the rights of version 3
    attributes = struct.pack("Q", every)
    rules = _check(_LIBC.syscall(_SYS_LANDLOCK, attributes, ctypes.c_size_t(8), 0), "landlock_create_ruleset")
    execute, write_file, read_file, read_folder = 1, 2, 4, 8
    allowed = [(path, read_file | (read_folder if os.path.isdir(path) else 0)) for path in readable]
    allowed += [(writable, every & ~execute), ("/dev/null", read_file | write_file)]
    for path, rights in allowed:
        folder = os.open(path, os.O_PATH)
        rule = struct.pack("<Qi", rights, folder)
        _check(_LIBC.syscall(_SYS_LANDLOCK + 1, rules, 1, rule, 0), f"landlock_add_rule {path}")
        os.close(folder)
    _check(_LIBC.syscall(_SYS_LANDLOCK + 2, rules, 0), "landlock_restrict_self")
    os.close(rules)
