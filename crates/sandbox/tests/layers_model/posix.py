# Tries what POSIX says of files, and prints what each call came to, one line a case. Each case has a
# directory of its own, filled first (`make`) and worked on later (`act`), so that a seal can lie in
# between. The same inside a sandbox and in a plain directory of the host.
import ctypes, errno, mmap, os, random, socket, stat, sys

os.umask(0o022)
KINDS = ["none", "file", "empty", "full", "link", "dangling", "loop", "fifo", "socket", "twin", "shut"]
LIBC = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2


def make(kind, name):
    if kind in ("file", "twin", "shut"):
        with open(name, "w") as file:
            file.write(kind + name)
    if kind == "twin":
        os.link(name, name + "-other")
    if kind in ("empty", "full"):
        os.mkdir(name)
    if kind == "full":
        os.mkdir(name + "/deep")
        make("file", name + "/deep/in")
    targets = {"link": "to-" + name, "dangling": "nowhere", "loop": name}
    if kind in targets:
        os.symlink(targets[kind], name)
    if kind == "link":
        make("file", "to-" + name)
    if kind == "fifo":
        os.mkfifo(name)
    if kind == "socket":
        os.mknod(name, stat.S_IFSOCK | 0o644)
    if kind == "shut":
        os.chmod(name, 0)


def renameat2(a, b, flags):
    if LIBC.renameat2(-100, a.encode(), -100, b.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), a)


def opened(name, flags):
    fd = os.open(name, flags | os.O_NONBLOCK, 0o640)
    try:
        return f"{os.fstat(fd).st_mode:o} {os.fstat(fd).st_size}"
    finally:
        os.close(fd)


def no_file(name):
    return not stat.S_ISREG(os.stat(name).st_mode)


# A descriptor sees what is written by the name, and keeps the file when the name goes.
def through(name):
    if no_file(name):
        return "no file"
    with open(name, "r+b", buffering=0) as file:
        with open(name, "ab", buffering=0) as other:
            other.write(b"more")
        os.unlink(name)
        file.write(b"x")
        return file.seek(0) or (file.read(), os.fstat(file.fileno()).st_nlink)


# A reader from before the first write.
def stale(name):
    if no_file(name):
        return "no file"
    with open(name, "rb", buffering=0) as reader:
        with open(name, "ab", buffering=0) as writer:
            writer.write(b"+")
        same = os.fstat(reader.fileno()).st_ino == os.stat(name).st_ino
        return reader.read(), same


def dated(name, follow):
    os.utime(name, ns=(1_000_000_007, 2_000_000_009), follow_symlinks=follow)
    status = os.stat(name, follow_symlinks=follow)
    return status.st_mtime_ns


def mapped(name):
    if no_file(name):
        return "no file"
    with open(name, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[0:1] = b"M"
        view.flush()
    return open(name, "rb").read()


def listens(name):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(name)
        server.listen()
        client.connect(name)
        return stat.S_ISSOCK(os.stat(name).st_mode)


FLAGS = {
    "r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "trunc": os.O_WRONLY | os.O_TRUNC,
    "creat": os.O_WRONLY | os.O_CREAT, "excl": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "nofollow": os.O_RDONLY | os.O_NOFOLLOW, "dir": os.O_RDONLY | os.O_DIRECTORY,
    "append": os.O_WRONLY | os.O_APPEND, "tmp": os.O_RDWR | os.O_TMPFILE,
}
ACTS = {f"open-{name}": (lambda flags: lambda a: opened(a, flags))(flags) for name, flags in FLAGS.items()}
ACTS |= {
    "mkdir": lambda a: os.mkdir(a, 0o750), "rmdir": os.rmdir, "unlink": os.unlink,
    "below": lambda a: os.mkdir(a + "/x"), "slash": lambda a: oct(os.stat(a + "/").st_mode), "dotdot": lambda a: os.mkdir(a + "/.."),
    "symlink": lambda a: os.symlink("t", a), "readlink": os.readlink, "mkfifo": os.mkfifo,
    "mksocket": lambda a: os.mknod(a, stat.S_IFSOCK), "mknod": lambda a: os.mknod(a, stat.S_IFREG | 0o600),
    "mkwhite": lambda a: os.mknod(a, stat.S_IFCHR, 0), "mkdevice": lambda a: os.mknod(a, stat.S_IFCHR, os.makedev(1, 3)),
    "link": lambda a: os.link(a, "new", follow_symlinks=False), "link-follow": lambda a: os.link(a, "new"),
    "chmod": lambda a: os.chmod(a, 0o6751), "chmod-none": lambda a: os.chmod(a, 0), "sticky": lambda a: os.chmod(a, 0o1777),
    "chown-self": lambda a: os.chown(a, os.getuid(), os.getgid()), "chown-other": lambda a: os.chown(a, 12345, -1),
    "date": lambda a: dated(a, True), "date-link": lambda a: dated(a, False), "truncate": lambda a: os.truncate(a, 3),
    "extend": lambda a: os.truncate(a, 100_000), "truncate-neg": lambda a: os.truncate(a, -1), "through": through,
    "stale": stale, "mapped": mapped, "list": os.listdir, "listen": listens, "access": lambda a: os.access(a, os.R_OK | os.X_OK),
    "setxattr": lambda a: os.setxattr(a, "user.a", b"1") or os.getxattr(a, "user.a"),
    "setxattr-trusted": lambda a: os.setxattr(a, "trusted.overlay.opaque", b"y"),
    "getxattr-none": lambda a: os.getxattr(a, "user.none"), "listxattr": os.listxattr,
    "long": lambda a: os.rename(a, "n" * 256), "longest": lambda a: os.rename(a, "n" * 255),
    "into-itself": lambda a: os.rename(a, a + "/x"), "to-itself": lambda a: os.rename(a, a), "to-other": lambda a: os.rename(a, a + "-other"),
    "up": lambda a: os.mkdir("up") or os.rename(a, "up/" + a) or os.rename("up/" + a, "back"),
}
CASES = [(f"{act}:{kind}", [kind], lambda act=act: ACTS[act]("a")) for act in ACTS for kind in KINDS]
CASES += [
    (f"{word}:{a}:{b}", [a, b], lambda call=call: call("a", "b"))
    for word, call in (("rename", os.rename), ("noreplace", lambda a, b: renameat2(a, b, NOREPLACE)),
                       ("exchange", lambda a, b: renameat2(a, b, EXCHANGE)),
                       ("link", lambda a, b: os.link(a, b, follow_symlinks=False)))
    for a in KINDS for b in KINDS
]


def state(path="."):
    found = []
    for name in sorted(os.listdir(path)):
        inner = os.path.join(path, name)
        status = os.lstat(inner)
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        found.append(f"{inner[2:]}={status.st_mode:o}/{size}")
        if stat.S_ISDIR(status.st_mode):
            found += state(inner)
    return found


def case(name, kinds, call, half):
    where = name.replace(":", "_")
    if half != "act":
        os.mkdir(where)
        os.chdir(where)
        for kind, path in zip(kinds, "ab"):
            make(kind, path)
        os.chdir("..")
    if half == "make":
        return
    os.chdir(where)
    try:
        said = repr(call())
    except OSError as error:
        said = errno.errorcode[error.errno]
    except ValueError as error:
        said = str(error)
    try:
        print(name, "->", said, "|", " ".join(state()))
    except OSError as error:
        print(name, "->", said, "|", errno.errorcode[error.errno])
    os.chdir("..")


# Random changes of one file against a shadow in memory; only those from `first` to `last` are made,
# those before are taken as done.
def shadowed(seed, first, last):
    chance, shadow = random.Random(seed), bytearray()
    fd = os.open(f"shadowed-{seed}", os.O_RDWR | os.O_CREAT)
    for number in range(last):
        verb, at, size = chance.choice("wwwrrtmmap"), chance.randrange(200_000), chance.randrange(1, 70_000)
        data, live = chance.randbytes(size), number >= first
        if number == first:
            print(seed, "begins", os.pread(fd, 1 << 20, 0) == bytes(shadow))
        if verb in "wa":
            at = len(shadow) if verb == "a" else at
            shadow.extend(bytes(max(0, at - len(shadow))))
            shadow[at:at + size] = data
            live and os.pwrite(fd, data, at)
        elif verb in "tp":
            shadow = shadow[:at] + bytes(max(0, at - len(shadow)))
            live and (os.ftruncate(fd, at) if verb == "t" else os.truncate(f"shadowed-{seed}", at))
        elif verb == "m" and at + size <= len(shadow):
            shadow[at:at + size] = data
            if live:
                with mmap.mmap(fd, 0) as view:
                    view[at:at + size] = data
        if live:
            whole, part = os.fstat(fd).st_size == len(shadow), os.pread(fd, size, at) == shadow[at:at + size]
            print(seed, number, verb, at, size, whole, part)
    print(seed, "ends", os.pread(fd, 1 << 20, 0) == bytes(shadow))
    os.close(fd)


for half in sys.stdin.read().split():
    for name, kinds, call in CASES:
        case(name, kinds, call, half)
    for seed in range(4):
        shadowed(seed, 0 if half != "act" else 150, 150 if half == "make" else 300)
