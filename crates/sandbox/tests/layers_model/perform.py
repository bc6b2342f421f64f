# Does what standard input says, one operation a line (verb, two paths in hexadecimal, a number), and
# prints what each came to; before and after that, what the whole tree looks like. The same inside a
# sandbox and in a plain directory of the host.
import errno, os, shutil, signal, stat, sys, zlib

os.umask(0o022)
# Files dated by an operation are older than this; all others are just "now".
NOW = 1_500_000_000
HOLE = 2 << 20


def write(path, flags, data, at=0):
    fd = os.open(path, flags | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    try:
        if data:
            os.pwrite(fd, data, at)
    finally:
        os.close(fd)


def truncate(path, size):
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)


def is_dir(path):
    return stat.S_ISDIR(os.lstat(path).st_mode)


def below(path):
    return [os.path.join(path, name) for name in sorted(os.listdir(path))]


def remove_all(path):
    if not is_dir(path):
        raise OSError(errno.ENOTDIR, path)
    for inner in below(path):
        remove_all(inner) if is_dir(inner) else os.unlink(inner)
    os.rmdir(path)


# What mv does where a directory of a lower layer cannot be renamed, without copying a file.
def move(source, target):
    status = os.lstat(source)
    if os.path.lexists(target):
        os.rmdir(target)
    os.mkdir(target)
    os.chmod(source, 0o700)
    for inner in below(source):
        moved = os.path.join(target, os.path.basename(inner))
        move(inner, moved) if is_dir(inner) else os.rename(inner, moved)
    shutil.copystat(source, target)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.rmdir(source)


def rename(source, target):
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        move(source, target)


# The same bytes in a new file.
def again(path):
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        data = os.pread(fd, 2 * HOLE, 0)
    finally:
        os.close(fd)
    os.unlink(path)
    write(path, os.O_CREAT | os.O_EXCL, data)


MODES = [0o644, 0o600, 0o755, 0o700, 0o711, 0o1777, 0o2755, 0o4755, 0o444, 0o555, 0o311, 0]


def perform(verb, a, b, n):
    data = bytes([n % 251]) * (n % 5000)
    match verb:
        case "create": write(a, os.O_CREAT | os.O_TRUNC, data)
        case "write": write(a, 0, data[:200], n % 9000)
        case "append": write(a, os.O_APPEND, data[:50])
        case "truncate": truncate(a, n % 7000)
        case "sparse": truncate(a, HOLE + n); write(a, 0, b"end", HOLE + n)
        case "again": again(a)
        case "unlink": os.unlink(a)
        case "mkdir": os.mkdir(a)
        case "rmdir": os.rmdir(a)
        case "remove_all": remove_all(a)
        case "rename": rename(a, b)
        case "link": os.link(a, b, follow_symlinks=False)
        case "symlink": os.symlink(b, a)
        # The top is never shut, so that the rest can go on.
        case "chmod": os.chmod(a, MODES[n % (6 if a == b"." else len(MODES))] | (0o700 if a == b"." else 0))
        case "date": os.utime(a, ns=(0, n * 1_000_000_007), follow_symlinks=False)
        # Those of the top do not outlast a step.
        case "setxattr" | "removexattr" if a == b".": pass
        case "setxattr": os.setxattr(a, f"user.x{n % 3}", data[:90], follow_symlinks=False)
        case "removexattr": os.removexattr(a, f"user.x{n % 3}", follow_symlinks=False)
        case "fifo": os.mkfifo(a)
        case "socket": os.mknod(a, stat.S_IFSOCK | 0o644)
        case _: raise AssertionError(verb)


def text(name):
    return name.decode("utf-8", "backslashreplace").encode("unicode_escape").decode().replace(" ", "\\x20")


def held(path, status):
    if stat.S_ISLNK(status.st_mode):
        return text(os.readlink(path))
    if not stat.S_ISREG(status.st_mode):
        return "-"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except PermissionError:
        return "shut"
    try:
        sparse = "sparse" if status.st_size - 512 * status.st_blocks > HOLE >> 2 else "full"
        return f"{sparse} {status.st_size} {zlib.crc32(os.pread(fd, 2 * HOLE, 0)):08x}"
    finally:
        os.close(fd)


def attributes(path):
    try:
        names = sorted(name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user."))
        return ",".join(f"{name}={zlib.crc32(os.getxattr(path, name, follow_symlinks=False)):08x}" for name in names)
    except PermissionError:
        return "shut"


def look(when, path, files):
    status = os.lstat(path)
    top = path == b"."
    date = "now" if top or status.st_mtime > NOW else status.st_mtime_ns
    # The first name of a file stands for all of them.
    one = text(files.setdefault(status.st_ino, path)) if stat.S_ISREG(status.st_mode) else "-"
    marks = "" if top else attributes(path)
    print(when, text(path), f"{status.st_mode:o}", date, one, marks or "-", held(path, status))
    if stat.S_ISDIR(status.st_mode):
        try:
            inner = below(path)
        except PermissionError:
            print(when, text(path), "shut")
            return
        for path in inner:
            try:
                look(when, path, files)
            except PermissionError:
                print(when, text(path), "shut")


look("before", b".", {})
for line in sys.stdin:
    verb, a, b, n = line.split()
    if verb == "stop":
        print("stopped", flush=True)
        signal.pause()
    try:
        perform(verb, bytes.fromhex(a), bytes.fromhex(b), int(n))
        print("did", verb)
    except OSError as error:
        print("did", verb, errno.errorcode[error.errno])
look("after", b".", {})
