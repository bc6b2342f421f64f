"""Tries one way past the boundary after another, as it is told on standard input.

Runs inside the sandbox, and once more beside it for the controls. It judges nothing: it says what
came of each act, one JSON line each.
"""
import base64, ctypes, functools, json, os, socket, ssl, struct, sys, threading, urllib.error, urllib.parse, urllib.request

WAIT_S = 15
libc = ctypes.CDLL(None, use_errno=True)
KEPT = []


def family(ip):
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def connect(ip, port, options=()):
    s = socket.socket(family(ip), socket.SOCK_STREAM, 262 if "mptcp" in options else 0)
    s.settimeout(WAIT_S)
    if "mark" in options:
        s.setsockopt(socket.SOL_SOCKET, 36, 7)
    if "device" in options:
        s.setsockopt(socket.SOL_SOCKET, 25, b"lo\0")
    if "transparent" in options:
        s.setsockopt(socket.SOL_IP, 19, 1)
    if "freebind" in options:
        s.setsockopt(socket.SOL_IP, 15, 1)
        s.bind(("198.18.9.9", 0))
    if "source" in options:
        s.bind(("192.0.2.1", 0))
    if "route" in options:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
    if "reuse" in options:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(("127.0.0.1", 15001))
    if "fastopen" in options:
        s.setblocking(True)
        s.sendto(b"", 0x20000000, (ip, port))
        s.settimeout(WAIT_S)
    else:
        s.connect((ip, port))
    return s


@functools.cache
def address(host):
    """Asked once: questions for names have a rate."""
    return socket.getaddrinfo(host, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]


def name_server():
    """The one this system is told to ask."""
    with open("/etc/resolv.conf") as file:
        found = [line.split()[1] for line in file if line.startswith("nameserver")]
    return found[0] if found else "127.0.0.1"


def through_proxy(host, port):
    """By the proxy that the environment names: some sandboxes have no other way."""
    proxy = urllib.parse.urlsplit(os.environ["https_proxy"])
    s = socket.create_connection((proxy.hostname, proxy.port), timeout=WAIT_S)
    head = "CONNECT %s HTTP/1.1\r\nHost: %s\r\n" % (("%s:%d" % (host, port),) * 2)
    if proxy.username:
        word = base64.b64encode(("%s:%s" % (proxy.username, proxy.password)).encode()).decode()
        head += "Proxy-Authorization: Basic %s\r\n" % word
    s.sendall(head.encode() + b"\r\n")
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        more = s.recv(1)
        if not more:
            raise OSError("the proxy hung up")
        said += more
    if said.split(b" ")[1] != b"200":
        s.close()
        raise OSError("the proxy says %s" % said.split(b"\r\n")[0].decode())
    return s


def reach(host, port, options=()):
    """Directly, and where that fails, by a proxy if there is one."""
    try:
        return connect(host if host[0].isdigit() or ":" in host else address(host), port, options)
    except OSError:
        if "https_proxy" not in os.environ:
            raise
    return through_proxy("[%s]" % host if ":" in host else host, port)


def read_answer(s):
    """Status and the code of a refusal; nothing when the connection ends without an answer."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = s.recv(65536)
            if not more:
                return {"closed": "ended"}
            data += more
        head, data = data.split(b"\r\n\r\n", 1)
        status = int(head.split(b" ")[1])
        if status != 100:
            break
    lines = head.lower().split(b"\r\n")
    length = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")]
    while len(data) < (length[0] if length else 0):
        more = s.recv(65536)
        if not more:
            break
        data += more
    code = ""
    try:
        code = json.loads(data)["error"]["code"]
    except Exception:
        pass
    return {"status": status, "code": code, "body": data[:4096].decode("latin-1")}


def talk(s, data):
    try:
        # A piece at a time, where the case is about pieces.
        for piece in data if isinstance(data, list) else [data]:
            s.sendall(piece)
    except OSError:
        pass  # Whoever refuses early closes early.
    return read_answer(s)


def filled(data):
    """Placeholders of secrets, where the case is about them."""
    return data.replace(b"{TOKEN}", os.environ.get("TOKEN", "none").encode())


def payload(act):
    if "pieces" in act:
        return [filled(bytes.fromhex(piece)) for piece in act["pieces"]]
    if "text" in act:
        return filled(act["text"].encode("latin-1"))
    return filled(bytes.fromhex(act["bytes"]))


def http(act):
    with reach(act["host"], act.get("port", 80)) as s:
        return talk(s, payload(act))


def http_at(act):
    with reach(act["ip"], act["port"], act.get("options", [])) as s:
        return talk(s, payload(act))


def secured(s, sni, alpn):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(alpn)
    return context.wrap_socket(s, server_hostname=sni or None)


def https(act):
    with reach(act.get("ip") or act["host"], act.get("port", 443)) as plain:
        with secured(plain, act["sni"], ["http/1.1"]) as s:
            return talk(s, payload(act))


def text_of(value):
    data = value.encode("latin-1")
    return struct.pack("!B", len(data)) + data if len(data) < 127 else b"\x7f" + bytes([len(data) - 127]) + data


def hpack(fields):
    return b"".join(b"\x00" + text_of(name) + text_of(value) for name, value in fields)


DIGITS = {("00000"): "0", ("00001"): "1", ("00010"): "2"}
DIGITS.update({format(25 + n, "06b"): str(3 + n) for n in range(7)})
INDEXED = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}


def status_of(block):
    """The status is the first field of an answer."""
    while block and block[0] & 0xE0 == 0x20:
        block = block[1:]
    if block[0] in INDEXED:
        return INDEXED[block[0]]
    size, huffman = block[1] & 0x7F, block[1] & 0x80
    value = block[2:2 + size]
    if not huffman:
        return int(value)
    bits, found = "".join(format(byte, "08b") for byte in value), ""
    while len(found) < 3:
        size = next(size for size in (5, 6) if bits[:size] in DIGITS)
        found, bits = found + DIGITS[bits[:size]], bits[size:]
    return int(found)


def frame(kind, flags, stream, data=b""):
    return struct.pack("!I", len(data))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + data


def http2(act):
    scheme, rest = act["uri"].split("://", 1)
    authority, _, path = rest.partition("/")
    fields = [(":method", act["method"]), (":scheme", scheme), (":authority", authority), (":path", "/" + path)]
    fields += [tuple(header) for header in act["headers"]]
    with reach(act["host"], 443) as plain, secured(plain, act["host"], ["h2"]) as s:
        begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
        s.sendall(begin + frame(1, 5, 1, hpack(fields)))
        data = b""
        while True:
            while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
                more = s.recv(65536)
                if not more:
                    return {"closed": "ended"}
                data += more
            size = int.from_bytes(data[:3], "big")
            kind, flags, body, data = data[3], data[4], data[9:9 + size], data[9 + size:]
            if kind == 1:
                return {"status": status_of(body), "code": "", "body": ""}
            if kind in (3, 7):
                return {"closed": "reset"}
            if kind == 4 and not flags & 1:
                s.sendall(frame(4, 1, 0))


def dns(act):
    labels = [bytes.fromhex(label) for label in act["labels"]]
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack("!2H", act["kind"], act.get("class", 1))
    server = act.get("server") or name_server()
    if act.get("tcp"):
        with connect(server, act.get("port", 53)) as s:
            s.sendall(struct.pack("!H", len(query)) + query)
            reply = b""
            while len(reply) < 2 or len(reply) < 2 + struct.unpack("!H", reply[:2])[0]:
                more = s.recv(4096)
                if not more:
                    return {"closed": "no answer"}
                reply += more
            reply = reply[2:]
    else:
        with socket.socket(family(server), socket.SOCK_DGRAM) as s:
            s.settimeout(WAIT_S)
            s.connect((server, 53))
            s.send(query)
            reply = s.recv(4096)
    if len(reply) < 12:
        return {"closed": "no answer"}
    return {"dns": [reply[3] & 15, struct.unpack("!H", reply[6:8])[0]]}


def datagram(act):
    s = socket.socket(family(act["ip"]), socket.SOCK_DGRAM, act.get("protocol", 0))
    s.settimeout(WAIT_S)
    if act.get("broadcast"):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if act.get("connected"):
        s.connect((act["ip"], act["port"]))
        s.send(b"SMUGGLED")
    else:
        s.sendto(b"SMUGGLED", (act["ip"], act["port"]))
    return "sent"


def open_socket(act):
    socket.socket(act["family"], act["type"], act.get("protocol", 0))
    return "opened"


def raw(act):
    s = socket.socket(family(act["ip"]), socket.SOCK_RAW, act["protocol"])
    s.sendto(bytes.fromhex(act["bytes"]), (act["ip"], 0))
    return "sent"


def packet(act):
    s = socket.socket(socket.AF_PACKET, act["type"], socket.htons(0x0800))
    s.bind(("lo", 0))
    return "bound"


def syscall(act):
    numbers = {"aarch64": 1}.get(os.uname().machine, 0)
    result = libc.syscall(act["number"][numbers], *[ctypes.c_long(n) for n in act.get("arguments", [])])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "returned %d" % result


def in_child(work):
    """What changes this process for good is tried in another."""
    @functools.wraps(work)
    def tried(act):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write, b"+" + work(act).encode())
            except BaseException as error:
                os.write(write, b"-" + repr(error).encode())
            os._exit(0)
        os.close(write)
        said = os.read(read, 4096)
        os.close(read)
        os.waitpid(child, 0)
        if not said.startswith(b"+"):
            raise OSError(said[1:].decode())
        return said[1:].decode()
    return tried


@in_child
def unshare(act):
    if libc.unshare(act["flags"]) < 0:
        raise OSError(ctypes.get_errno(), "unshare")
    return "unshared"


@in_child
def setns(act):
    with open(act["path"]) as namespace:
        if libc.setns(namespace.fileno(), 0) < 0:
            raise OSError(ctypes.get_errno(), "setns")
    return "entered"


def netlink(act):
    """One message, and the kernel's answer to it."""
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, act["protocol"])
    s.settimeout(WAIT_S)
    body = bytes.fromhex(act["bytes"])
    s.send(struct.pack("=IHHII", 16 + len(body), act["message"], act.get("flags", 0x0605), 1, 0) + body)
    reply = s.recv(65536)
    kind, = struct.unpack("=H", reply[4:6])
    error = struct.unpack("=i", reply[16:20])[0] if kind == 2 else 0
    if error:
        raise OSError(-error, os.strerror(-error))
    return "taken"


def unix(act):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(WAIT_S)
    path = act["path"]
    s.connect("\0" + path[1:] if path.startswith("@") else path)
    return "connected"


def by_variable(act):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(os.environ[act["name"]])
    return "connected"


def descriptor(act):
    s = socket.socket(fileno=os.dup(act["number"]))
    s.sendall(b"SMUGGLED")
    return "sent"


def tcp(act):
    with reach(act["ip"], act["port"]) as s:
        s.sendall(b"SMUGGLED\r\n\r\n")
        said = s.recv(100)
        if said != b"got it":
            raise OSError("answered %r" % said)
        return "answered"


def write_file(act):
    with open(act["path"], "r+") as file:
        text = file.read()
        file.seek(0)
        file.write(text)
    return "written"


def read_file(act):
    with open(act["path"], "rb") as file:
        return "read %d bytes" % len(file.read(100) or b"")


def listen(act):
    s = socket.create_server((act["ip"], act["port"]), family=family(act["ip"]))
    KEPT.append(s)
    threading.Thread(target=s.accept, daemon=True).start()
    return "listening"


def fetch(act):
    """As a program with a library does: redirects are followed, and proxy variables count."""
    for name, value in act.get("env", {}).items():
        os.environ[name] = value
    try:
        headers = {name: filled(value.encode()).decode() for name, value in act.get("headers", {}).items()}
        request = urllib.request.Request(act["url"], headers=headers)
        with urllib.request.build_opener().open(request, timeout=WAIT_S) as answer:
            return {"status": answer.status, "code": "", "body": answer.read().decode("latin-1")}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "code": "", "body": error.read().decode("latin-1")}
    finally:
        for name in act.get("env", {}):
            del os.environ[name]


ACTS = {f.__name__: f for f in (
    http, http_at, https, http2, dns, datagram, open_socket, raw, packet, syscall, unshare, setns, netlink,
    unix, by_variable, descriptor, tcp, write_file, read_file, listen, fetch)}

for line in sys.stdin:
    act = json.loads(line)
    try:
        found = ACTS[act["do"]](act)
        if isinstance(found, str):
            found = {"reached": found}
    except Exception as error:
        found = {"closed": "%s: %s" % (type(error).__name__, error)}
    print(json.dumps(found), flush=True)
