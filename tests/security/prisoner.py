"""Runs in a sandbox and tries what a child may not do; prints what became of each as JSON.

`python prisoner.py SECRETS SHARED`: JSON {name: path} of files that must stay hidden, and {name:
number} of somebody's shared memory and semaphores of System V.
"""

import ctypes
import errno
import fcntl
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import shared_memory
from pathlib import Path

SECRETS = json.loads(sys.argv[1])
SHARED = json.loads(sys.argv[2])
LIBC = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
OUTCOMES = {}


def attempt(name):
    def run(act):
        try:
            OUTCOMES[name] = {"done": repr(act())[:200]}
        except (OSError, ValueError) as error:
            OUTCOMES[name] = {"refused": type(error).__name__, "errno": getattr(error, "errno", 0)}

    return run


def call(x86, arm, *arguments):
    result = LIBC.syscall(*(ctypes.c_long(a) for a in (x86 if X86 else arm, *arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def read(path):
    with open(path, "rb") as file:
        return file.read(1)


def write(path):
    with open(path, "w") as file:
        file.write("x")


def into_another_thread(act):
    caught = []

    def run():
        try:
            act()
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if caught:
        raise caught[0]


def spawn_many():
    started = 0
    for _ in range(50):
        try:
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
            started += 1
        except OSError as error:
            OUTCOMES["forks"] = {"started": started, "errno": error.errno}
            return


def open_queue():
    return call(240, 180, ctypes.addressof(QUEUE), os.O_CREAT | os.O_RDWR, 0o600, 0)


QUEUE = ctypes.create_string_buffer(b"secateur-queue")
for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"):
    for kind in ("SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW"):
        attempt(f"network: {family} {kind}")(
            lambda f=family, k=kind: socket.socket(getattr(socket, f), getattr(socket, k))
        )
attempt("network: datagrams")(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
attempt("own: pair")(lambda: [s.fileno() for s in socket.socketpair()])
for name, path in SECRETS.items():
    attempt(f"read: {name}")(lambda p=path: read(p))
    attempt(f"list: folder of {name}")(lambda p=path: os.listdir(os.path.dirname(p)))
    attempt(f"thread: {name}")(lambda p=path: into_another_thread(lambda: read(p)))
    attempt(f"link: {name}")(lambda p=path: os.link(p, "tmp/linked"))
    if name == "project":
        continue  # the real one, which a broken sandbox must not cost
    attempt(f"write: {name}")(lambda p=path: write(p))
    attempt(f"chmod: {name}")(lambda p=path: os.chmod(p, 0o777))
    attempt(f"age: {name}")(lambda p=path: os.utime(p, (0, 0)))
    attempt(f"remove: {name}")(lambda p=path: os.unlink(p))
for path in ("/etc/passwd", "/etc/shadow", "/proc/1/environ", "/dev/kmsg", "/dev/shm"):
    attempt(f"read: {path}")(lambda p=path: os.listdir(p) if os.path.isdir(p) else read(p))
for path in ("/", "/etc", "/home", "/root", "/tmp", "/run", "/var"):
    attempt(f"list: {path}")(lambda p=path: os.listdir(p))
for path in ("/tmp/x", "/usr/x", "/x", "/dev/shm/x", "/dev/x", "../x", sys.prefix + "/x"):
    attempt(f"write: {path}")(lambda p=path: write(p))
parent = os.getppid()
PARENT = parent.to_bytes(4, "little")
attempt("signal: the parent")(lambda: os.kill(parent, 0))
attempt("signal: everybody")(lambda: os.kill(-1, 0))
attempt("signal: the group")(lambda: os.killpg(0, 0))
attempt("trace: the parent")(lambda: call(101, 117, 16, parent, 0, 0))  # PTRACE_ATTACH
attempt("trace: memory")(lambda: call(310, 270, parent, 0, 0, 0, 0, 0))
attempt("limits of the parent")(lambda: resource.prlimit(parent, resource.RLIMIT_CORE))
attempt("shared: memory of System V")(lambda: call(29, 194, 0, 1 << 20, 0o1600))
attempt("shared: attached")(lambda: call(30, 196, SHARED["memory"], 0, 0o10000))
attempt("shared: removed")(lambda: call(31, 195, SHARED["memory"], 0, 0))
attempt("shared: semaphores")(lambda: call(64, 190, 0, 1, 0o1600))
attempt("shared: semaphore read")(lambda: call(66, 191, SHARED["semaphores"], 0, 12, 0))
attempt("shared: queue of System V")(lambda: call(68, 186, 0, 0o1600))
attempt("shared: queue of POSIX")(lambda: open_queue())
attempt("shared: memory of POSIX")(lambda: shared_memory.SharedMemory("x", create=True, size=9))
attempt("shared: semaphore of POSIX")(lambda: multiprocessing.Semaphore())
attempt("shared: a file in memory")(lambda: os.memfd_create("x"))
attempt("names: of a folder")(lambda: call(294, 26, 0))
attempt("names: of a folder, watched")(lambda: call(254, 27, 3, 0, 0))
for name, path in SECRETS.items():
    attempt(f"attributes: {name}")(lambda p=path: os.listxattr(p))
attempt("signal: by a pipe")(lambda: fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, parent))
attempt("signal: by a socket")(lambda: fcntl.ioctl(socket.socketpair()[0], 0x8901, PARENT))
attempt("schedule: the parent")(lambda: os.sched_setscheduler(parent, 3, os.sched_param(0)))
os.sched_setaffinity(parent, {max(os.sched_getaffinity(0))})
attempt("namespace: user")(lambda: call(272, 97, 0x10000000))
attempt("namespace: clone")(lambda: call(56, 220, 0x10000000 | 17, 0, 0, 0, 0))
attempt("clone3")(lambda: call(435, 435, 0, 0))
attempt("kernel: io_uring")(lambda: call(425, 425, 1, 0))
attempt("kernel: bpf")(lambda: call(321, 280, 0, 0, 0))
attempt("kernel: keys")(lambda: call(250, 219, 0, 0, 0))
attempt("kernel: mount")(lambda: call(165, 40, 0, 0, 0, 0, 0))
attempt("kernel: chroot")(lambda: os.chroot("tmp"))
attempt("device node")(lambda: os.mknod("tmp/node", 0o600 | 0o020000, os.makedev(1, 3)))
attempt("process: run")(lambda: subprocess.run(["/bin/true"], check=False))
attempt("raise a limit")(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40)))
if X86:
    attempt("kernel: x32")(lambda: call(0x40000000 | 39, 0))
spawn_many()


def large_file():
    with open("tmp/large", "wb") as file:
        file.truncate(SECRETS and 1 << 30)


attempt("large file")(large_file)

os.symlink(next(iter(SECRETS.values())), "tmp/way-out")
attempt("read: through a link")(lambda: read("tmp/way-out"))

# What a job does must work.
attempt("own: write")(lambda: Path("tmp/a").write_text("a"))
attempt("own: another folder")(lambda: os.rename("tmp/a", "checkpoints/a"))
attempt("own: remove")(lambda: os.unlink("checkpoints/a"))
attempt("own: read")(lambda: os.listdir("."))
attempt("own: threads")(lambda: into_another_thread(lambda: None))
attempt("own: null")(lambda: write("/dev/null"))
attempt("own: random")(lambda: os.urandom(4) + read("/dev/urandom"))
attempt("own: signal")(lambda: os.kill(os.getpid(), 0))
attempt("own: affinity")(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)))
attempt("own: status")(lambda: Path("/proc/self/status").read_text())

status = Path("/proc/self/status").read_text().splitlines()
print(
    json.dumps(
        {
            "outcomes": OUTCOMES,
            "status": dict(line.split(":\t", 1) for line in status if ":\t" in line),
            "environ": dict(os.environ),
            "temporary": __import__("tempfile").gettempdir(),
            "cwd": os.getcwd(),
            "eperm": errno.EPERM,
            "ignored": signal.getsignal(signal.SIGTERM) == signal.SIG_IGN,
        }
    )
)
