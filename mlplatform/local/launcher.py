"""Turns itself into a server that dies with the supervisor, and that is not root if it must not be.

A script of its own, run with `python -I -S`: what it does has to happen between fork and exec, and the
supervisor is a Python process whose forked copy may do almost nothing safely. Standard library only.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
CLONE_NEWUSER = 0x10000000

NAMESPACE_USER = 1000
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: object) -> None:
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def enter_user_namespace() -> None:
    """Stay root on disk, but be user 1000 in a user namespace: PostgreSQL only looks at the number."""
    user, group = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER)
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{NAMESPACE_USER} {user} 1"),
        ("gid_map", f"{NAMESPACE_USER} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def become_nobody() -> None:
    """Be the user nobody, keeping the one right to enter folders of root (mode 700)."""
    call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    bit = 1 << CAP_DAC_OVERRIDE
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    call("capset", header, effective_permitted_inheritable)
    call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def namespaces_work() -> bool:
    """Whether a child can enter a user namespace; containers often forbid it."""
    child = os.fork()
    if child == 0:
        try:
            enter_user_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def hand_over(folder: str, owner: int) -> None:
    """Make `folder` belong to `owner`, who may differ from the last start's (another container)."""
    if os.stat(folder).st_uid == owner:
        return
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            os.chown(os.path.join(parent, name), owner, owner, follow_symlinks=False)
    os.chown(folder, owner, owner)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True, help="die when this process dies")
    parser.add_argument("--signal", required=True, help="the signal to die by")
    parser.add_argument("--not-root", metavar="FOLDER", help="if root, step down and own FOLDER")
    parser.add_argument("--nobody", action="store_true", help="step down without a user namespace")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    if options.not_root and os.geteuid() == 0:
        if not options.nobody and namespaces_work():
            hand_over(options.not_root, os.geteuid())
            enter_user_namespace()
        else:
            hand_over(options.not_root, NOBODY)
            become_nobody()
    # After the change of user, which clears it.
    call("prctl", PR_SET_PDEATHSIG, signal.Signals[options.signal].value, 0, 0, 0)
    if os.getppid() != options.parent:  # it died before it was watched
        sys.exit(1)
    # Inherited as ignored by what a shell starts in the background; Ctrl-C must end it all the same.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(options.command[0], options.command)  # noqa: S606


if __name__ == "__main__":
    main()
