"""The first process inside a sandbox: warm until claimed, then starts programs, and reports how they ended.

Runs on the standard library of whatever Python the image has (3.11 or later), on one thread, so that it can fork. It is inside: nothing that
it says is trusted by the host beyond exit statuses. Messages are four bytes of length and JSON; descriptors travel beside them.
"""

import ctypes
import errno
import fcntl
import gc
import io
import json
import os
import random
import resource
import runpy
import select
import selectors
import signal
import site
import socket
import struct
import sys
import termios
import time
import types

# What most programs load, loaded now, so that a warm one does not wait for it.
import argparse, collections, contextlib, dataclasses, datetime, functools, hashlib, pathlib  # noqa: E401, F401, I001
import logging, re, shutil, subprocess, tempfile, threading, typing, urllib.parse, urllib.request  # noqa: E401, F401

CONTROL = 3
# How long a terminal is looked at once its program has ended and somebody that it left behind holds the terminal open, in seconds: at least,
# since what was read from it may be on its way, and at most, since that somebody may write for ever.
TRAIL, MOST_TRAIL = 0.2, 5.0
_libc = ctypes.CDLL(None, use_errno=True)


class Agent:
    def __init__(self):
        self.socket = socket.socket(fileno=CONTROL)
        self.buffer = b""
        self.fds = []
        self.claim = None
        self.runs = {}  # pid -> run id
        self.pids = {}  # run id -> pid
        self.terminals = {}  # run id -> master
        self.relays = {}  # pid of who carries a terminal's bytes -> run id
        self.ended = {}  # run id -> status and when, while its last output is carried
        self.selector = selectors.DefaultSelector()
        woken, waker = socket.socketpair()
        for end in (woken, waker):
            end.setblocking(False)
        self.woken, self.waker = woken, waker
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self.selector.register(self.socket, selectors.EVENT_READ)
        self.selector.register(woken, selectors.EVENT_READ)

    def send(self, **message):
        data = json.dumps(message).encode()
        self.socket.sendall(struct.pack("!I", len(data)) + data)

    def serve(self):
        """Serves until the host hangs up; returns only in a forked child that is to become a Python program."""
        self.send(event="ready", python=sys.version.split()[0])
        while True:
            for key, _ in self.selector.select(0.05 if self.ended else None):
                if key.fileobj is self.woken:
                    try:
                        self.woken.recv(4096)
                    except BlockingIOError:
                        pass
                    self.reap()
                else:
                    program = self.read()
                    if program is not None:
                        return program
            self.trail()

    def read(self):
        data, fds, _, _ = socket.recv_fds(self.socket, 65536, 16)
        if not data:
            self.end()
        self.buffer += data
        self.fds += fds
        while len(self.buffer) >= 4:
            (length,) = struct.unpack("!I", self.buffer[:4])
            if len(self.buffer) < 4 + length:
                return None
            message = json.loads(self.buffer[4 : 4 + length])
            self.buffer = self.buffer[4 + length :]
            program = self.handle(message)
            if program is not None:
                return program
        return None

    def end(self):
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
        os._exit(0)

    def handle(self, message):
        kind = message["do"]
        if kind == "claim":
            try:
                self.prepare(message)
                self.claim = message
                self.send(event="claimed")
            except OSError as error:
                self.send(event="failed", reason=f"{error.filename or 'claim'}: {error.strerror}")
        elif kind == "run":
            fds, self.fds = self.fds[:3], self.fds[3:]
            return self.run(message, fds)
        elif kind == "signal":
            self.signal(message)
        elif kind == "resize" and message["id"] in self.terminals:
            resize(self.terminals[message["id"]], message)
        return None

    def prepare(self, claim):
        """Brings the working folder to the path that it has on the host, and makes the home."""
        os.makedirs(claim["home"], exist_ok=True)
        os.chown(claim["home"], claim["uid"], claim["gid"])
        os.chmod(claim["home"], 0o700)
        with open("/etc/passwd", "w") as users:
            print(f"agent:x:{claim['uid']}:{claim['gid']}:agent:{claim['home']}:/bin/bash", file=users)
            if claim["uid"] != 0:
                print("root:x:0:0:root:/:/bin/sh", file=users)
        with open("/etc/group", "w") as groups:
            print(f"agent:x:{claim['gid']}:", file=groups)
        os.makedirs(claim["workdir"], exist_ok=True)
        if claim["workdir"] != claim["slot"]:
            mount(claim["slot"], claim["workdir"], MS_BIND)
            mount(None, claim["workdir"], MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV)
        limits = claim["limits"]
        hard = {
            resource.RLIMIT_NPROC: limits["processes"],
            resource.RLIMIT_NOFILE: limits["files"],
            resource.RLIMIT_AS: limits["memory"],
            resource.RLIMIT_FSIZE: limits["file_size"],
            resource.RLIMIT_CORE: 0,
        }
        self.limits = [(which, value) for which, value in hard.items() if value is not None]

    def run(self, message, fds):
        env = {**self.claim["env"], **message["env"], **self.claim["secrets"]}
        terminal = message["terminal"]
        master = slave = None
        if terminal:
            master, slave = os.openpty()
            os.fchown(slave, self.claim["uid"], self.claim["gid"])
            resize(master, terminal)
            self.relays[relay(master, fds[0], fds[1], slave)] = message["id"]
        pid = os.fork()
        if pid == 0:
            return self.child(message, env, fds, slave)
        for fd in (*fds, slave):
            if fd is not None:
                os.close(fd)
        if master is not None:
            self.terminals[message["id"]] = master
        self.runs[pid] = message["id"]
        self.pids[message["id"]] = pid
        return None

    def child(self, message, env, fds, slave):
        """Turns the fork into the program; returns what a warm Python has to run, and only then."""
        signal.set_wakeup_fd(-1)
        os.setsid()
        if slave is not None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            fds = [slave, slave, slave]
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        try:
            os.chdir(message["cwd"])
            drop_privileges(self.claim["uid"], self.claim["gid"], self.limits)
            if self.claim["confinement"]:
                confine(self.claim["confinement"], [self.claim["workdir"], self.claim["home"], "/tmp", "/var/tmp", "/dev"])
        except OSError as error:
            leave(f"creto: cannot start in `{message['cwd']}`: {error.strerror}", 126)
        argv = message["argv"]
        found = search(argv[0], env.get("PATH", os.defpath))
        if found is None:
            leave(f"creto: `{argv[0]}` is not in the sandbox's view, or is no program", 127)
        if is_warm(found, argv, env):
            os.environ.clear()
            os.environ.update(env)
            return found, argv
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            os.execve(found, argv, env)
        except OSError as error:
            leave(f"creto: `{argv[0]}`: {error.strerror}", 126)

    def signal(self, message):
        pid = self.pids.get(message["id"])
        if pid is None:
            return
        try:
            os.killpg(pid, message["signal"])
        except ProcessLookupError:
            # Not yet the leader of its group: the child is between fork and setsid.
            os.kill(pid, message["signal"])

    def reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            status = os.waitstatus_to_exitcode(status)
            if pid in self.relays:
                run = self.relays.pop(pid)
                if run in self.ended:
                    self.report(run, self.ended[run][0])
                continue
            run = self.runs.pop(pid, None)
            if run is None:
                continue
            self.pids.pop(run, None)
            if run in self.relays.values():
                self.ended[run] = (status, time.monotonic())
            else:
                self.report(run, status)

    def trail(self):
        """Reports programs that have ended, though somebody holds their terminal, once nothing of theirs is left in it."""
        for run, (status, since) in list(self.ended.items()):
            waited = time.monotonic() - since
            if waited > MOST_TRAIL or (waited > TRAIL and not select.select([self.terminals[run]], [], [], 0)[0]):
                self.report(run, status)

    def report(self, run, status):
        """Says that a program has ended; a terminal of its own goes with it."""
        self.ended.pop(run, None)
        master = self.terminals.pop(run, None)
        if master is not None:
            os.close(master)
        self.send(event="exit", id=run, status=status)


MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 2, 4, 32, 4096


def mount(source, target, flags):
    if _libc.mount(source and source.encode(), target.encode(), None, flags, None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def drop_privileges(uid, gid, limits):
    for which, value in limits:
        resource.setrlimit(which, (value, value))
    for capability in range(64):
        if _libc.prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP
            if ctypes.get_errno() == errno.EINVAL:
                break
            if ctypes.get_errno() == errno.EPERM:
                raise PermissionError(errno.EPERM, "cannot drop a capability")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = struct.pack("Ii", 0x20080522, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "cannot drop capabilities")
    if _libc.prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "cannot forbid new privileges")
    os.umask(0o022)


LANDLOCK_ALL = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights over files a version of the interface knows; 16 from version 5 on
LANDLOCK_READ = 0b1101  # execute, read files, list folders


def confine(confinement, writable):
    """Puts Landlock and seccomp on this process: reading where the root shows something, writing in few places, and no odd system call."""
    version = confinement["landlock"]
    every = (1 << LANDLOCK_ALL.get(version, 16)) - 1
    scoped = 0b11 if version >= 6 else 0  # abstract sockets, signals
    ruleset = _syscall(444, struct.pack("QQQ", every, 0, scoped)[: 24 if version >= 6 else 16 if version >= 4 else 8])
    devices = (1 << 6) | (1 << 11)  # making character and block devices
    for path, allowed in [("/", LANDLOCK_READ), *((path, every & ~devices) for path in writable)]:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _syscall(445, ruleset, 1, struct.pack("=Qi", allowed, folder), 0)
        os.close(folder)
    _syscall(446, ruleset, 0)
    os.close(ruleset)
    for filter_ in map(bytes.fromhex, confinement["seccomp"]):
        program = ctypes.create_string_buffer(filter_, len(filter_))
        header = struct.pack("HxxxxxxP", len(filter_) // 8, ctypes.addressof(program))
        if _libc.prctl(22, 2, header, 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
            raise OSError(ctypes.get_errno(), "cannot install a system call filter")


def _syscall(number, *arguments):
    """A system call without a wrapper in the C library; bytes are passed with their length where Landlock wants it."""
    if number == 444:
        arguments = (arguments[0], ctypes.c_size_t(len(arguments[0])), 0)
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number} failed: {os.strerror(ctypes.get_errno())}")
    return result


def leave(text, status):
    os.write(2, text.encode() + b"\n")
    os._exit(status)


def search(name, path):
    if "/" in name:
        candidates = [name]
    else:
        candidates = [os.path.join(folder or ".", name) for folder in path.split(":")]
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def is_warm(found, argv, env):
    """True where this very interpreter can run the program: no options or variables that only a new one would read."""
    if os.path.realpath(found) != os.path.realpath(sys.executable) or any(key.startswith("PYTHON") for key in env):
        return False
    return len(argv) > 1 and (not argv[1].startswith("-") or (argv[1] in ("-c", "-m") and len(argv) > 2))


def resize(terminal, size):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size["rows"], size["columns"], 0, 0))


def relay(master, source, sink, slave):
    """Forks a process that carries bytes between the host's pipes and the terminal until the terminal is closed; its pid."""
    pid = os.fork()
    if pid != 0:
        return pid
    os.close(slave)
    waiting = selectors.DefaultSelector()
    waiting.register(master, selectors.EVENT_READ, sink)
    waiting.register(source, selectors.EVENT_READ, master)
    try:
        while True:
            for key, _ in waiting.select():
                data = os.read(key.fd, 65536)
                if data:
                    write(key.data, data)
                elif key.fd == source:
                    waiting.unregister(source)
                    write(master, b"\x04")
                else:
                    os._exit(0)
    except OSError:
        os._exit(0)


def write(fd, data):
    while data:
        data = data[os.write(fd, data) :]


def prepare_python(found, argv):
    """Makes this fork look like an interpreter that was just started with `argv`."""

    def stream(fd, mode, **options):
        raw = io.FileIO(fd, mode, closefd=False)
        buffered = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
        return io.TextIOWrapper(buffered, encoding="utf-8", **options)

    sys.stdin = sys.__stdin__ = stream(0, "r", errors="strict")
    sys.stdout = sys.__stdout__ = stream(1, "w", errors="strict", line_buffering=os.isatty(1))
    sys.stderr = sys.__stderr__ = stream(2, "w", errors="backslashreplace", line_buffering=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    random.seed()
    sys.executable = found
    sys.orig_argv = list(argv)
    del sys.path[0]
    enter_environment(os.path.dirname(os.path.dirname(os.path.abspath(found))))
    main = types.ModuleType("__main__")
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main
    return main


def enter_environment(prefix):
    """Takes on the virtual environment at `prefix`, where there is one (PEP 405)."""
    try:
        with open(os.path.join(prefix, "pyvenv.cfg"), encoding="utf-8") as file:
            settings = dict(line.lower().replace(" ", "").rstrip().split("=", 1) for line in file if "=" in line)
    except OSError:
        return
    sys.prefix = sys.exec_prefix = prefix
    site.PREFIXES[:] = [prefix]
    if settings.get("include-system-site-packages") != "true":
        sys.path[:] = [path for path in sys.path if not path.endswith(("site-packages", "dist-packages"))]
    for folder in site.getsitepackages([prefix]):
        site.addsitedir(folder)


def run_python(found, argv):
    main = prepare_python(found, argv)
    if argv[1] == "-c":
        sys.argv = ["-c", *argv[3:]]
        sys.path.insert(0, "")
        sys.excepthook = without_our_frames
        exec(compile(argv[2], "<string>", "exec"), main.__dict__)
    elif argv[1] == "-m":
        sys.argv = ["-m", *argv[3:]]
        sys.path.insert(0, os.getcwd())
        sys.excepthook = without_our_frames
        runpy._run_module_as_main(argv[2])
    else:
        script = argv[1]
        sys.argv = argv[1:]
        try:
            with open(script, "rb") as file:
                source = file.read()
        except OSError as error:
            leave(f"{found}: can't open file '{os.path.abspath(script)}': [Errno {error.errno}] {error.strerror}", 2)
        sys.path.insert(0, os.path.dirname(os.path.realpath(script)))
        main.__file__ = os.path.abspath(script)
        main.__cached__ = None
        sys.excepthook = without_our_frames
        exec(compile(source, script, "exec"), main.__dict__)


def without_our_frames(kind, error, trace):
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.excepthook = sys.__excepthook__
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


gc.collect()
gc.freeze()  # what is here now is shared with every fork
_program = Agent().serve()
run_python(*_program)
