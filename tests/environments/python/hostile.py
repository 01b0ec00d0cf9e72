# ruff: noqa: E501
"""Programs that try to get out of the sandbox, to hang it, or to take it over. None of them may succeed.

In: nothing. Out: `PROGRAMS`, code by name. A program prints ESCAPED if it did what it must not be able to do. Words
between at-signs are replaced (`filled`): @PORT@ a port that somebody listens on, @SOCKET@ an abstract Unix socket,
@PID@ a process outside, @SECRET@ a file outside, @REPOSITORY@ the folder of the project, @VARIABLE@ an environment
variable of the controller.
"""

from __future__ import annotations

from collections.abc import Mapping

_SYSCALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*arguments):
    return libc.syscall(*[ctypes.c_long(one) if isinstance(one, int) else one for one in arguments])
"""
_FINDS_SOCKET = """
import os, stat
sockets = [number for number in range(3, 64) if number not in (0, 1, 2)]
def is_socket(number):
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False
sockets = [number for number in sockets if is_socket(number)]
"""


def _refused(*lines: str) -> str:
    """A program whose last line must raise an exception."""
    body = "\n".join(f"    {line}" for line in lines)
    return f"try:\n{body}\n    print('ESCAPED')\nexcept BaseException as error:\n    print('refused', type(error).__name__)"


def _syscalls(*calls: str) -> str:
    """A program whose system calls must all fail."""
    return _SYSCALL + "\n".join(f"if call({one}) >= 0: print('ESCAPED', {one.split(',')[0]})" for one in calls)


PROCESSES = {
    "fork": _refused("import os", "os.fork()"),
    "fork bomb": "import os\nwhile True:\n    try:\n        os.fork()\n        print('ESCAPED')\n    except OSError:\n        pass",
    "forkpty": _refused("import os", "os.forkpty()"),
    "vfork by number": _syscalls("58", "57"),
    "clone by number": _syscalls(
        "56, 17, 0, 0, 0, 0", "56, 0x11, 0, 0, 0, 0", "56, 0x10000 | 0x100 | 0x800, 0, 0, 0, 0"
    ),
    "clone into new namespaces": _syscalls("56, 17 | 0x10000000, 0, 0, 0, 0", "56, 17 | 0x20000, 0, 0, 0, 0"),
    "clone3": _SYSCALL
    + "import struct\nargs = struct.pack('QQQQQQQQ', 0, 0, 0, 0, 17, 0, 0, 0)\nif call(435, args, 64) >= 0: print('ESCAPED')",
    "fork of the C library": "import ctypes\nif ctypes.CDLL(None).fork() >= 0: print('ESCAPED')",
    "threads": _refused("import threading", "threading.Thread(target=print).start()"),
    "thread bomb": "import threading\nn = 0\nfor _ in range(10000):\n    try:\n        threading.Thread(target=lambda: None).start()\n        print('ESCAPED')\n    except RuntimeError:\n        n += 1\nn",
    "thread pool": _refused(
        "from concurrent.futures import ThreadPoolExecutor", "ThreadPoolExecutor().submit(print).result()"
    ),
    "multiprocessing": _refused("import multiprocessing", "p = multiprocessing.Process(target=print)", "p.start()"),
    "process pool": _refused("import multiprocessing", "multiprocessing.Pool(2).map(abs, [1])"),
    "subprocess": _refused("import subprocess", "subprocess.run(['/usr/bin/id'], check=True)"),
    "shell": "import os\nif os.system('/usr/bin/id') == 0: print('ESCAPED')",
    "popen": _refused("import os", "print(os.popen('id').read())"),
    "posix_spawn": _refused("import os", "os.posix_spawn('/usr/bin/id', ['id'], {})"),
    "exec": _refused("import os", "os.execv('/usr/bin/python3', ['python3', '-c', 'print(1)'])"),
    "exec of the dynamic loader": _refused(
        "import os", "os.execv('/lib64/ld-linux-x86-64.so.2', ['ld', '/usr/bin/id'])"
    ),
    "daemon": _refused("import os", "os.setsid()"),
    "process group": _refused("import os", "os.setpgid(0, 0)"),
}

MEMORY = {
    "one big object": "bytearray(10**11)",
    "growing list": "x = []\nwhile True:\n    x.append(bytes(1 << 20))",
    "growing text": "x = 'a'\nwhile True:\n    x += x",
    "caught memory errors": "x = []\nwhile True:\n    try:\n        x.append(bytearray(1 << 20))\n    except MemoryError:\n        pass",
    "anonymous mmap": "import mmap\nx = []\nwhile True:\n    x.append(mmap.mmap(-1, 1 << 24, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))",
    "shared mmap": _refused("import mmap", "mmap.mmap(-1, 4096)"),
    "mmap by number": _SYSCALL
    + "libc.mmap.restype = ctypes.c_long\nn = 0\nwhile libc.mmap(None, ctypes.c_long(1 << 28), 3, 0x22, -1, 0) != -1: n += 1\nif n > 100: print('ESCAPED')",
    "raised limits": _refused("import resource", "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))"),
    "no limits": _refused("import resource", "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))"),
    "limits of another": _refused("import os, resource", "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))"),
    "limits of nothing": "import resource\nfor name in ('RLIMIT_NOFILE', 'RLIMIT_FSIZE', 'RLIMIT_AS', 'RLIMIT_STACK'):\n    resource.setrlimit(getattr(resource, name), (0, 0))",
    "no CPU for me": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (0, 0))\nwhile True: pass",
    "stack": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    "recursion": "def f(): return f()\nf()",
    "recursion in repr": "class A:\n    def __repr__(self): return repr(self)\nA()",
    "nested brackets": "compile('(' * 10**6, 'x', 'exec')",
    "nested brackets of the block": "(" * 5000 + ")" * 5000,
    "big power": "x = 10**(10**8)\ny = 10**(10**9)",
    "big number as text": "import sys\nsys.set_int_max_str_digits(0)\nstr(7**(10**8))",
    "factorial": "import math\nmath.factorial(10**9)",
    "regular expression": "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')",
    "busy": "while True: pass",
    "busy, deaf": "while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass",
    "busy in C": "sum(range(10**13))",
    "sleep": "import time\ntime.sleep(10**6)",
    "sleep, caught": "import time\nwhile True:\n    try:\n        time.sleep(100)\n    except BaseException:\n        pass",
    "pause": "import signal\nsignal.pause()",
    "deadlock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "reads a pipe that nobody writes": "import os\nos.read(os.pipe()[0], 1)",
    "reads standard input": _refused("input()"),
    "poll for ever": "import select\nselect.select([], [], [])",
}

NETWORK = {
    "TCP": _refused("import socket", "socket.create_connection(('127.0.0.1', @PORT@), 1)"),
    "TCP listener": _refused("import socket", "socket.create_server(('127.0.0.1', 0))"),
    "UDP": _refused(
        "import socket", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', @PORT@))"
    ),
    "IPv6": _refused("import socket", "socket.socket(socket.AF_INET6)"),
    "Unix socket": _refused("import socket", "socket.socket(socket.AF_UNIX).connect('\\0@SOCKET@')"),
    "netlink": _refused("import socket", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"),
    "packets": _refused("import socket", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    "kernel's cryptography": _refused("import socket", "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)"),
    "DNS": _refused("import socket", "print(socket.getaddrinfo('example.com', 80))"),
    "HTTP": _refused("import urllib.request", "urllib.request.urlopen('http://127.0.0.1:@PORT@/', timeout=1)"),
    "connects its own socket": _FINDS_SOCKET
    + _SYSCALL
    + "address = b'\\1\\0\\0@SOCKET@'\nfor number in sockets:\n    if call(42, number, address, len(address)) >= 0: print('ESCAPED')",
    "sends descriptors": _refused(
        "import os, socket, array",
        "a, b = socket.socketpair()",
        "a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))])",
    ),
    "socket by number": _syscalls("41, 2, 1, 0", "41, 1, 1, 0", "53, 2, 1, 0, 0"),
}

OUTSIDE = {
    "reads a file of the user": _refused("print(open('@SECRET@').read())"),
    "reads it through a symlink": _refused("import os", "os.symlink('@SECRET@', 'link')", "print(open('link').read())"),
    "reads it through a hard link": _refused("import os", "os.link('@SECRET@', 'link')", "print(open('link').read())"),
    "reads it through the parent": "import os\nfor up in range(30):\n    try:\n        print(open('../' * up + '.' + '@SECRET@').read())\n    except OSError:\n        pass",
    "reads it by handle": _syscalls("304, -100, b'x' * 64, 0", "303, -100, b'/', b'x' * 200, b'x' * 8, 0"),
    "writes it": _refused("open('@SECRET@', 'w').write('changed')"),
    "searches for it": "import os\nfor folder, _, names in os.walk('/'):\n    if folder.count('/') > 3: continue\n    if 'canary-secret' in names: print(open(folder + '/canary-secret').read())",
    "reads the repository": _refused("import os", "print(os.listdir('@REPOSITORY@/mcts_dpo'))"),
    "imports the project": _refused("import mcts_dpo.common"),
    "reads the home": "import os\nfor place in ('/root', '/home', os.path.expanduser('~')):\n    for folder, _, names in os.walk(place):\n        if any(name in ('.bashrc', '.profile', '.ssh') for name in names): print('ESCAPED', folder)",
    "environment variables": "import os\nprint(os.environ, os.environb)\nif '@VARIABLE@' in os.environ: print('ESCAPED')",
    "environment in memory": "import ctypes\nlibc = ctypes.CDLL(None)\nenviron = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, 'environ')\nn = 0\nwhile environ[n]:\n    print(environ[n])\n    n += 1",
    "environment in /proc": _refused("print(open('/proc/self/environ', 'rb').read())"),
    "environment of process 1": _refused("print(open('/proc/1/environ', 'rb').read())"),
    "lists /proc": _refused("import os", "print(os.listdir('/proc'))"),
    "lists /sys": _refused("import os", "print(os.listdir('/sys'))"),
    "lists descriptors": _refused("import os", "print(os.listdir('/dev/fd'))"),
    "memory of /proc": _refused("open('/proc/self/mem', 'r+b')"),
    "devices": "for name in ('mem', 'kmsg', 'kvm', 'vda', 'sda', 'tty', 'console', 'fuse', 'shm/x', 'ptmx'):\n    try:\n        open('/dev/' + name, 'r+b')\n        print('ESCAPED', name)\n    except OSError:\n        pass",
    "new device": _refused("import os, stat", "os.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(8, 0))"),
    "named pipe": _refused("import os", "os.mkfifo('pipe')"),
    "passwords": _refused("print(open('/etc/passwd').read())"),
    "deletes everything": "import shutil, os\nfor name in ('/usr', '/lib', '/program', '/packages', '/etc', '/root', '/scratch'):\n    shutil.rmtree(name, ignore_errors=True)\nif not os.path.exists('/usr/lib'): print('ESCAPED')",
    "deletes Python": _refused("import os", "os.remove(os.__file__)"),
    "overwrites a library": _refused("import os", "open(os.__file__, 'a').write('x')"),
    "overwrites the program": _refused("open('/program/inside/zygote.py', 'a').write('x')"),
    "writes to the root": _refused("open('/x', 'w').write('x')"),
    "makes a directory in /dev": _refused("import os", "os.mkdir('/dev/x')"),
    "chroot": _refused("import os", "os.chroot('.')"),
    "becomes root": _refused("import os", "os.setuid(0)"),
    "groups": _refused("import os", "os.setgroups([0])"),
    "opens itself with more rights": _refused("import os", "os.chmod('.', 0o777)"),
    "rights of the scratch root": _refused("import os", "os.chmod('/scratch', 0o755)", "print(os.listdir('/scratch'))"),
    "priority": _refused("import os", "os.nice(-20)"),
    "priority of others": _refused("import os", "os.setpriority(os.PRIO_USER, 0, 19)"),
    "scheduler of others": _refused("import os", "os.sched_setaffinity(os.getppid(), {0})"),
    "time of the machine": _refused("import time", "time.clock_settime(time.CLOCK_REALTIME, 0)"),
    "name of the machine": _refused("import socket", "socket.sethostname('x')"),
    "syncs all disks": "import os\nos.sync()",
}

KERNEL = {
    "kill by number": _syscalls(
        "62, @PID@, 9",
        "62, -1, 9",
        "62, 1, 9",
        "62, 0, 9",
        "200, 1, 9",
        "234, 1, 1, 9",
        "424, 0, 9, 0, 0",
        "129, 1, 9, 0",
        "297, 1, 1, 9, 0",
    ),
    "ptrace": _syscalls("101, 0, 0, 0, 0", "101, 16, 1, 0, 0", "101, 16, 2, 0, 0"),
    "memory of other processes": _syscalls("310, 1, 0, 0, 0, 0, 0", "311, 1, 0, 0, 0, 0, 0", "440, 0, 0, 0, 0, 0"),
    "namespaces": _syscalls("272, 0x10000000", "272, 0x20000", "272, 0x40000000", "308, 0, 0"),
    "mounts": _syscalls(
        "165, b'x', b'/usr', b'tmpfs', 0, 0",
        "166, b'/usr', 2",
        "155, b'.', b'.'",
        "428, -100, b'/', 1",
        "429, 0, b'', -100, b'/', 0",
        "430, b'tmpfs', 0",
        "442, -100, b'/', 0, 0, 0",
    ),
    "io_uring": _syscalls("425, 8, b'\\0' * 120", "426, 0, 0, 0, 0, 0", "427, 0, 0, 0, 0"),
    "bpf, perf, userfaultfd": _syscalls("321, 0, 0, 0", "298, b'\\0' * 120, 0, -1, -1, 0", "323, 0"),
    "keys": _syscalls("250, 0, -3, 0, 0, 0", "248, b'user', b'x', b'y', 1, -3", "249, b'user', b'x', 0, 0"),
    "modules, reboot, swap": _syscalls(
        "175, 0, 0, 0", "313, 0, 0, 0", "246, 0, 0, 0, 0", "169, 0, 0, 0, 0", "167, b'x', 0", "163, b'x'"
    ),
    "shared memory, queues": _syscalls(
        "29, 1, 4096, 0o1666", "68, 1, 0o1666", "64, 1, 1, 0o1666", "240, b'x', 0o102, 0o600, 0", "319, b'x', 0"
    ),
    "other filters": _syscalls("317, 1, 0, 0", "157, 4, 1, 0, 0, 0", "157, 38, 0, 0, 0, 0", "157, 22, 2, 0, 0, 0"),
    "processes by descriptor": _syscalls("434, 1, 0", "434, 2, 0", "438, 0, 0, 0"),
    "notices": _syscalls("253", "294, 0", "300, 0, 0"),
    "signal by fcntl": "import fcntl, os\nr, w = os.pipe()\nfor command, value in ((8, 1), (10, 9), (8, 2), (15, 1)):\n    try:\n        fcntl.fcntl(r, command, value)\n        print('ESCAPED', command)\n    except OSError:\n        pass",
    "signal by ioctl": _refused("import fcntl, os, struct", "fcntl.ioctl(os.pipe()[0], 0x8901, struct.pack('i', 1))"),
    "types into the terminal": _refused("import fcntl", "fcntl.ioctl(0, 0x5412, b'x')"),
    "every system call": _SYSCALL
    + "skipped = {15, 34, 60, 231, 130, 23, 7, 270, 271, 0, 35, 230, 232, 281, 61, 247, 202, 128}\nfor number in range(470):\n    if number not in skipped:\n        call(number, 0, 0, 0, 0, 0, 0)\nprint('done')",
    "every system call, minus one": _SYSCALL
    + "skipped = {15, 34, 60, 231, 130, 3, 33, 292, 436, 12, 11, 10, 13, 14, 7, 23, 61, 247, 202, 128, 158, 232, 271}\nfor number in range(470):\n    if number not in skipped:\n        call(number, -1, -1, -1, -1, -1, -1)\nprint('done')",
    "calls of 32 bits": _SYSCALL
    + "import mmap\ncode = bytes.fromhex('b80b000000cd80c3')\nmemory = mmap.mmap(-1, 4096, flags=34, prot=7)\nmemory.write(code)\nctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()",
    "calls of x32": _SYSCALL + "if call(0x40000000 + 57) >= 0: print('ESCAPED')",
}

SIGNALS = {
    "kill the parent": _refused("import os", "os.kill(os.getppid(), 9)"),
    "kill every process": "import os\nfor pid in (-1, 0, @PID@, *range(1, 400)):\n    for number in (9, 15, 19):\n        try:\n            os.kill(pid, number)\n            print('ESCAPED', pid)\n        except OSError:\n            pass",
    "kill the group": _refused("import os", "os.killpg(0, 9)"),
    "kill itself": "import os\nos.kill(os.getpid(), 9)",
    "raises signals": "import signal\nfor number in (11, 6, 9, 19):\n    try:\n        signal.raise_signal(number)\n    except OSError:\n        pass",
    "ignores all signals": "import signal\nfor number in signal.valid_signals():\n    try:\n        signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\nwhile True: pass",
    "blocks all signals": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nwhile True: pass",
    "timer that fires after the block": "import signal, time\ndef later(*_):\n    while True: time.sleep(1)\nsignal.signal(signal.SIGALRM, later)\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)",
    "timer that raises": "import signal\ndef later(*_): raise SystemExit\nsignal.signal(signal.SIGALRM, later)\nsignal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)\nwhile True:\n    try:\n        pass\n    except BaseException:\n        pass",
    "children's deaths are handled": "import signal, time\nsignal.signal(signal.SIGCHLD, lambda *_: time.sleep(100))",
}

ENDS = {
    "_exit": "import os\nos._exit(0)",
    "exit": "import sys\nsys.exit(3)",
    "exit of the shell": "exit()",
    "SystemExit": "raise SystemExit",
    "abort": "import os\nos.abort()",
    "segmentation fault": "import ctypes\nctypes.string_at(0)",
    "jump into nothing": "import ctypes\nctypes.CFUNCTYPE(None)(1)()",
    "crash in the interpreter": "import ctypes\nctypes.pythonapi.Py_FatalError(b'x')",
    "bad bytecode": "def f(): pass\nf.__code__ = f.__code__.replace(co_code=b'\\x64\\xff' * 20)\nf()",
    "atexit": "import atexit, time\natexit.register(time.sleep, 10**6)\nraise SystemExit",
    "thread at exit": "import threading\nthreading._register_atexit(lambda: None)\nthreading._shutdown = lambda: input()\nraise SystemExit",
    "BaseException": "raise BaseException('x' * 10**6)",
    "error without an end": "class Bad(BaseException):\n    def __str__(self):\n        while True: pass\nraise Bad",
    "error that raises": "class Bad(BaseException):\n    def __str__(self): raise Bad\n    __repr__ = __str__\nraise Bad",
    "error in a circle": "a, b = ValueError('a'), ValueError('b')\na.__cause__, b.__cause__ = b, a\nraise a",
    "exit in the error": "class Bad(Exception):\n    def __str__(self): raise SystemExit\nraise Bad",
    "representation without an end": "class A:\n    def __repr__(self):\n        while True: pass\nA()",
    "representation that is none": "class A:\n    def __repr__(self): return 5\nA()",
    "very long representation": "'x' * 10**8",
    "null byte": "x = 1\0",
    "lone surrogate": "'\ud800'",
    "not Python": "}{",
    "coding that is not there": "# -*- coding: nonsense -*-\n1",
}

OUTPUT = {
    "prints without an end": "while True: print('x' * 1000)",
    "prints without an end, caught": "while True:\n    try:\n        print('x' * 10**5)\n    except Exception:\n        pass",
    "prints without an end, all caught": "while True:\n    try:\n        print('x' * 10**5)\n    except BaseException:\n        pass",
    "prints nothing without an end": "while True: print('', end='')",
    "prints much at once": "print('x' * 10**8)",
    "standard error": "import sys\nwhile True: print('x' * 10**5, file=sys.stderr)",
    "writes to every descriptor": "import os\nfor _ in range(1000):\n    for number in range(64):\n        try:\n            os.write(number, b'x' * 1000)\n        except OSError:\n            pass",
    "writes to standard output": "import os\nwhile True: os.write(1, b'x' * 10**6)",
    "terminal codes": "print('\\x1b]0;title\\x07\\x1b[2J\\0')",
    "replaces standard output": "import sys\nclass Bad:\n    def write(self, text):\n        while True: pass\nsys.stdout = Bad()\nprint(1)",
    "removes standard output": "import sys\ndel sys.stdout\nprint(1)",
    "takes the output object apart": "import sys\nsys.stdout.parts = None\nsys.stdout.cut = 7",
    "output that lies": "import sys\nsys.stdout.text = lambda: 'x' * 10**8\nsys.stdout.cut = False",
}

CONTROL = {
    "garbage on the socket": _FINDS_SOCKET + "for number in sockets: os.write(number, b'garbage')",
    "empty message on the socket": _FINDS_SOCKET
    + _SYSCALL
    + "for number in sockets: call(44, number, b'', 0, 0, 0, 0)",
    "huge message on the socket": _FINDS_SOCKET
    + "for number in sockets:\n    try:\n        os.write(number, b'\\2' + b'x' * 10**6)\n    except OSError:\n        pass\n    os.write(number, b'\\2' + b'x' * 190000)",
    "floods the socket": _FINDS_SOCKET
    + "while True:\n    for number in sockets: os.write(number, b'\\0\\0\\0\\0\\1x')",
    "false reply": _FINDS_SOCKET + "for number in sockets: os.write(number, b'\\0\\0\\0\\0\\4fake')",
    "false reply, then sleeps": _FINDS_SOCKET
    + "import time\nfor number in sockets: os.write(number, b'\\0\\0\\0\\0\\4fake')\ntime.sleep(10**6)",
    "false reply, then busy": _FINDS_SOCKET
    + "for number in sockets: os.write(number, b'\\0\\0\\0\\0\\4fake')\nwhile True: pass",
    "false length": _FINDS_SOCKET + "for number in sockets: os.write(number, b'\\3\\xff\\xff\\xff\\xffshort')",
    "false greeting": _FINDS_SOCKET + "for number in sockets:\n    for _ in range(10): os.write(number, b'H')",
    "closes all descriptors": "import os\nos.closerange(0, 64)",
    "closes and sleeps": "import os, time\nos.closerange(0, 64)\ntime.sleep(10**6)",
    "takes the socket's place": _FINDS_SOCKET + "r, w = os.pipe()\nfor number in sockets: os.dup2(r, number)",
    "shuts the socket down": _FINDS_SOCKET
    + "import socket\nfor number in sockets: socket.socket(fileno=number).shutdown(socket.SHUT_RDWR)",
    "eats the controller's messages": _FINDS_SOCKET + "for number in sockets: os.read(number, 100)",
    "finds the socket object": "import gc, _socket\nfor one in gc.get_objects():\n    if isinstance(one, _socket.socket): one.close()",
    "changes the program's frames": "import sys\nframe = sys._getframe()\nwhile frame:\n    for name in ('serve', 'fork', 'packed_reply', 'become_state', 'run_block', 'close_files'):\n        if name in frame.f_globals: frame.f_globals[name] = lambda *a, **k: None\n    frame = frame.f_back",
    "changes the program's modules": "import sys\nfor name, module in list(sys.modules.items()):\n    if 'inside' in name:\n        for one in list(vars(module)): setattr(module, one, None)",
    "runs the program again": "import sys\nsys.path.insert(0, '/program')\nsys.argv = ['x', '3', 'again']\nfrom inside import zygote\nzygote.main()",
    "serves by itself": _FINDS_SOCKET
    + "import sys\nfrom _socket import socket as Socket, AF_UNIX, SOCK_SEQPACKET\nzygote = [m for n, m in sys.modules.items() if n.startswith('inside')]\nfor number in sockets:\n    Socket(AF_UNIX, SOCK_SEQPACKET, 0, number).send(b'\\0\\0\\0\\0\\0')\nwhile True: pass",
    "sleeps at the fork, in the child": "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(10**6))",
    "sleeps at the fork, before": "import os, time\nos.register_at_fork(before=lambda: time.sleep(10**6))",
    "exits at the fork": "import os\nos.register_at_fork(after_in_child=lambda: os._exit(0))",
    "forks at the fork": "import os\ndef more():\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            break\nos.register_at_fork(after_in_child=more, before=more)",
    "traces": "import sys, time\ndef trace(*_):\n    time.sleep(0.01)\n    return trace\nsys.settrace(trace)\nsys._getframe().f_trace = trace\nframe = sys._getframe()\nwhile frame:\n    frame.f_trace = trace\n    frame = frame.f_back",
    "profiles": "import sys, time\nsys.setprofile(lambda *_: time.sleep(0.01))",
    "collector's callbacks": "import gc, time\ngc.callbacks.append(lambda *_: time.sleep(10))\ngc.set_threshold(1)\nx = [[] for _ in range(10)]",
    "finaliser": "import time\nclass A:\n    def __del__(self): time.sleep(10**6)\nA()\nx = A()\nx.me = x\ndel x",
    "audit hook": "import sys, time\nsys.addaudithook(lambda *_: time.sleep(1))",
}

TRICKS = {
    "no builtins": "import builtins\nfor name in list(vars(builtins)):\n    if name not in ('setattr', 'delattr', 'vars', 'list', 'builtins') and not name.startswith('__'):\n        delattr(builtins, name)",
    "other builtins": "import builtins\nbuiltins.repr = builtins.len = builtins.open = builtins.print = builtins.isinstance = builtins.exec = lambda *a, **k: 1/0",
    "no modules": "import sys\nsys.modules.clear()",
    "false modules": "import sys\nfor name in list(sys.modules): sys.modules[name] = None",
    "own os": "import sys, os\nopen('os.py', 'w').write('print(\"ESCAPED\")')\nsys.path.insert(0, '.')\ndel sys.modules['os']\ntry:\n    import os\nexcept BaseException as error:\n    print(error)".replace(
        "ESCAPED", "own code"
    ),
    "import hook": "import sys, time\nclass Finder:\n    def find_spec(self, *a): time.sleep(10**6)\nsys.meta_path.insert(0, Finder())\nimport a_module_that_is_not_there",
    "own library": "import ctypes, shutil\nshutil.copy(ctypes.__file__.replace('ctypes/__init__.py', 'os.py'), 'x.so')\ntry:\n    ctypes.CDLL('./x.so')\n    print('ESCAPED')\nexcept OSError as error:\n    print(error)",
    "patched functions": "import os, gc, select, tempfile, traceback, ast\nfor module in (os, gc, select, tempfile, traceback, ast):\n    for name in list(vars(module)):\n        if not name.startswith('__'):\n            try: setattr(module, name, None)\n            except BaseException: pass",
    "own main": "import sys\nsys.modules['__main__'] = None\n__name__ = 'x'\n__builtins__ = {}",
    "forgets everything": "globals().clear()",
    "changes None": "import ctypes\nctypes.memset(id(None), 0, 8)",
    "changes True": "import ctypes\nctypes.memmove(id(True) + 24, id(False) + 24, 4)",
    "writes over its memory": "import ctypes\nfor page in range(id(object), id(object) + 10**7, 64): ctypes.memset(page, 255, 64)",
    "no collector": "import gc\ngc.disable()\nwhile True:\n    x = []\n    x.append([x] * 1000)",
    "hash collisions": "d = {i * (2**61 - 1): i for i in range(10**5)}",
    "asyncio without an end": "import asyncio\nasync def main():\n    while True: await asyncio.sleep(0)\nasyncio.run(main())",
}

FILES = {
    "fills the disk": "n = 0\nwhile True:\n    open(f'file-{n}', 'wb').write(b'x' * (1 << 20))\n    n += 1",
    "fills the disk, caught": "n = 0\nwhile True:\n    try:\n        n += 1\n        open(f'file-{n}', 'wb').write(b'x' * (1 << 20))\n    except OSError:\n        pass",
    "one huge file": "with open('x', 'wb') as file:\n    while True: file.write(b'x' * (1 << 20))",
    "sparse file": "open('x', 'wb').truncate(10**15)",
    "sparse files": "for n in range(100): open(f'x{n}', 'wb').truncate(1 << 20)",
    "allocated file": "import os\nos.posix_fallocate(os.open('x', os.O_RDWR | os.O_CREAT), 0, 10**12)",
    "many files": "n = 0\nwhile True:\n    open(f'file-{n}', 'w').close()\n    n += 1",
    "many open files": "x = []\nwhile True: x.append(open(f'file-{len(x)}', 'w'))",
    "many pipes": "import os\nwhile True: os.pipe()",
    "deep directories": "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')",
    "directories without rights": "import os\nfor mode in (0, 0o300, 0o500, 0o600):\n    try:\n        os.mkdir(f'd{mode}', mode)\n        open(f'd{mode}/x', 'w').write('x' * 10**5)\n        print('ESCAPED')\n    except OSError:\n        pass",
    "mask of rights": _refused("import os", "os.umask(0o777)"),
    "files without rights": "import os\nfor n in range(50): os.close(os.open(f'x{n}', os.O_CREAT, 0))",
    "symlinks in a circle": "import os\nos.symlink('b', 'a')\nos.symlink('a', 'b')\nos.symlink('/', 'root')\nos.symlink('.', 'here')",
    "removes its directory": "import os, shutil\nshutil.rmtree(os.getcwd())",
    "moves its directory": "import os\nhere = os.getcwd()\nos.rename(here, here + '-moved')\nos.symlink('/usr', here)",
    "odd names": "import os\nopen(b'\\xff\\xfe\\n', 'w').write('x')\nopen('x' * 255, 'w').write('x')",
    "looks for siblings": "import os\nabove = ['..'] if os.getcwd() != '/' else []  # there is no directory of its own where another path filled the disk\nfor name in ['/scratch', '/scratch/.', *above]:\n    try:\n        print('ESCAPED', os.listdir(name))\n    except OSError:\n        pass",
    "looks for siblings by walking": "import os\nfor folder, _, names in os.walk('/scratch'):\n    print('ESCAPED', names)",
    "locks": "import fcntl\nf = open('x', 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\ng = open('x')\nfcntl.flock(g, fcntl.LOCK_EX)",
    "times of files": "import os\nopen('x', 'w')\nos.utime('x', (10**12, 10**12))",
    "holds deleted files": "import os\nkept = []\nfor n in range(40):\n    kept.append(open('x', 'wb'))\n    kept[-1].write(b'x' * (1 << 19))\n    kept[-1].flush()\n    os.unlink('x')",
}

PROGRAMS: Mapping[str, str] = {
    f"{kind}: {name}": code
    for kind, group in (
        ("processes", PROCESSES),
        ("resources", MEMORY),
        ("network", NETWORK),
        ("outside", OUTSIDE),
        ("kernel", KERNEL),
        ("signals", SIGNALS),
        ("ends", ENDS),
        ("output", OUTPUT),
        ("control", CONTROL),
        ("tricks", TRICKS),
        ("files", FILES),
    )
    for name, code in group.items()
}


def filled(code: str, places: Mapping[str, object]) -> str:
    """The program with the words between at-signs replaced."""
    for name, value in places.items():
        code = code.replace(f"@{name}@", str(value))
    return code
