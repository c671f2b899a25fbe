"""The system calls that a program in the sandbox may not make, as a seccomp filter built from three tables.

`DENIED` fails with EPERM, and so does `CHANGES` (which Landlock leaves open) where the program sees the files of the
host; `MISSING` fails with ENOSYS, so that the C library falls back to an older call. A few calls are allowed with one
argument only (threads but no processes, signals to oneself). Calls newer than the tables fail with ENOSYS; a call of
another processor mode kills the process. The filter is a deny list: it takes away the surfaces that
matter (new processes, other programs, sockets, tracing, mounts, keys, BPF, io_uring), it does not prove that what is
left has no kernel bug. Numbers: Linux `syscall_64.tbl` and `asm-generic/unistd.h`.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from melete.evals.jail import kernel

# name: (x86-64, arm64); -1 where the processor does not have the call.
DENIED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "userfaultfd": (323, 282),
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281),
    "unshare": (272, 97), "setns": (308, 268), "setsid": (112, 157), "setpgid": (109, 154),
    "socket": (41, 198), "bind": (49, 200), "connect": (42, 203), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429),
    "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "acct": (163, 89),
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "personality": (135, 92),
    "init_module": (175, 105), "delete_module": (176, 106), "finit_module": (313, 273),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "syslog": (103, 116), "vhangup": (153, 58),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "perf_event_open": (298, 241), "bpf": (321, 280), "seccomp": (317, 277),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "tkill": (200, 130),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "mknod": (133, -1), "mknodat": (259, 33),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semctl": (66, 191),
    "msgget": (68, 186), "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
}  # fmt: skip
CHANGES = {
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1),
    "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1),
    "utimensat": (280, 88), "futimesat": (261, -1), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
MISSING = {"clone3": (435, 435), "openat2": (437, 437)}
NEWEST = 462

_ARCH = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENT_0 = 0, 4, 16
_CLONE_THREAD = 0x10000
_PR_SET_SECCOMP, _FILTER = 22, 2


def supported() -> bool:
    """Whether the tables know this processor."""
    return kernel.MACHINE in _ARCH


def install(may_signal: int, shares_files: bool) -> None:
    """Puts the filter on this process for ever; needs `no_new_privs`.

    Args:
        may_signal: the only process that may be sent a signal.
        shares_files: whether the files of the host are in sight.
    """
    code = program(may_signal, shares_files)
    size = len(code) // 8
    buffer = ctypes.create_string_buffer(code)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", size, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.c_void_p(ctypes.addressof(header)), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl SECCOMP")


def program(may_signal: int, shares_files: bool) -> bytes:
    """The filter as BPF instructions of 8 bytes; arguments as for `install`."""
    architecture, column = _ARCH[kernel.MACHINE]
    code = [
        _op(_LOAD, _ARCHITECTURE),
        _op(_EQUAL, architecture, 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NUMBER),
    ]
    code += _when(_AT_LEAST, NEWEST + 1, errno.ENOSYS)
    changes = CHANGES if shares_files else {}
    for table, error in ((DENIED, errno.EPERM), (changes, errno.EPERM), (MISSING, errno.ENOSYS)):
        for numbers in table.values():
            if numbers[column] >= 0:
                code += _when(_EQUAL, numbers[column], error)
    # A new process is refused, a thread is not; clone's flags are its first argument on both processors.
    code += _unless((56, 220)[column], 0, _ANY_BIT, _CLONE_THREAD)
    code += _unless((62, 129)[column], 0, _EQUAL, may_signal)  # kill
    code += _unless((234, 131)[column], 0, _EQUAL, may_signal)  # tgkill
    code += _unless((302, 261)[column], 0, _EQUAL, 0)  # prlimit64: oneself only
    code += _unless((157, 167)[column], 0, _EQUAL, 15)  # prctl: only the name of a thread
    for half in (0, 4):  # sendto: no address, which is a pointer of 64 bits
        code += _unless((44, 206)[column], 4, _EQUAL, 0, half)
    return b"".join([*code, _op(_RETURN, _ALLOW)])


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value & 0xFFFFFFFF)


def _when(test: int, value: int, error: int) -> list[bytes]:
    return [_op(test, value, 0, 1), _op(_RETURN, _ERRNO | error)]


def _unless(number: int, argument: int, test: int, value: int, half: int = 0) -> list[bytes]:
    """EPERM for a call unless 32 bits of an argument (the low half by default) pass the test."""
    return [
        _op(_EQUAL, number, 0, 4),
        _op(_LOAD, _ARGUMENT_0 + 8 * argument + half),
        _op(test, value, 1, 0),
        _op(_RETURN, _ERRNO | errno.EPERM),
        _op(_LOAD, _NUMBER),
    ]
