"""The world outside a sandbox, in a network namespace of its own: servers, a name server, and a
capture of every packet. It starts the sandbox, hands it one act after another, and notes what was
seen out here meanwhile. It judges nothing.
"""
import fcntl, json, os, socket, ssl, struct, subprocess, sys, threading, time

plan = json.load(open(sys.argv[1]))
WAIT_S = 20
PUBLIC = ["93.184.216.34", "93.184.216.35", "93.184.216.36"]
RESOLVER = "9.9.9.9"
MARKER = ("127.0.0.99", 9)
lock = threading.Lock()
seen = {"requests": 0, "attack": b"", "control": b"", "phase": "control", "syn": [], "other": [], "names": []}
markers = threading.Semaphore(0)
drained = threading.Semaphore(0)


def ask_kernel(kind, flags, body):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as s:
        s.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        error, = struct.unpack("=i", s.recv(4096)[16:20])
        if error:
            raise OSError(-error, "netlink")


def world_of_its_own():
    """Loopback, on which every address is here."""
    with socket.socket() as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh22x", b"lo", 0x41))
    for af in (socket.AF_INET, socket.AF_INET6):
        route = struct.pack("=8BI", af, 0, 0, 0, 255, 3, 254, 2, 0)
        ask_kernel(24, 0x605, route + struct.pack("=HHI", 8, 4, 1))
    with open(plan["dir"] + "/resolv.conf", "w") as file:
        file.write("nameserver %s\n" % RESOLVER)
    target = os.path.realpath("/etc/resolv.conf")
    subprocess.run(["mount", "--bind", plan["dir"] + "/resolv.conf", target], check=True)


def capture():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, 33 if plan["root"] else socket.SO_RCVBUF, 8 << 20)
    s.bind(("lo", 0))
    return s


def watch(s):
    while True:
        data, where = s.recvfrom(65536)
        note(data, where[1], where[2] == 4)


def note(data, protocol, going_out):
    """Each packet of loopback is seen twice. What goes out counts; a marker counts when it is in."""
    if protocol == 0x0800:
        size, kind = (data[0] & 15) * 4, data[9]
        to = socket.inet_ntop(socket.AF_INET, data[16:20])
    elif protocol == 0x86DD:
        size, kind = 40, data[6]
        to = socket.inet_ntop(socket.AF_INET6, data[24:40])
    else:
        return
    port = struct.unpack("!H", data[size + 2:size + 4])[0] if len(data) >= size + 4 else 0
    if kind == 17 and (to, port) == MARKER:
        if not going_out:
            markers.release()
    elif not going_out:
        pass
    elif kind == 17 and to == RESOLVER and port == 53:
        pass  # The name server notes the name.
    elif kind == 17 and struct.unpack("!H", data[size:size + 2])[0] == 53:
        pass  # Its answer.
    elif kind == 1 and data[size] == 3 or kind == 58 and data[size] == 1:
        pass  # The answer to what was noted already.
    elif kind == 6:
        if data[size + 13] & 0x12 == 0x02:
            with lock:
                seen["syn"].append("%s:%d" % (to, port))
    else:
        with lock:
            seen["other"].append("%s:%d protocol %d" % (to, port, kind))


def barrier():
    """Everything that was sent before is noted when this returns, and every answer of the kernel to
    it: each processor takes in what it sent in order, answers in their turn."""
    mine = os.sched_getaffinity(0)
    for processor in sorted(mine) * 2:
        os.sched_setaffinity(0, {processor})
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"m", MARKER)
        if not markers.acquire(timeout=WAIT_S):
            raise SystemExit("the capture has stopped")
    os.sched_setaffinity(0, mine)
    for path in plan["sockets"]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.connect(chr(0) + path[1:] if path.startswith("@") else path)
            if not drained.acquire(timeout=WAIT_S):
                raise SystemExit("the sockets are not served")
    with lock:
        return {"requests": seen["requests"], "syn": list(seen["syn"]), "other": list(seen["other"]),
                "names": list(seen["names"])}


def serve_one(s, context, speaks):
    try:
        s.settimeout(60)
        if context:
            s = context.wrap_socket(s, server_side=True)
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                more = s.recv(65536)
                if not more:
                    return
                data += more
                arrived(more)
                if not speaks and b"SMUGGLED" in data:
                    s.sendall(b"got it")
            head, data = data.split(b"\r\n\r\n", 1)
            data = body(s, head.lower(), data)
            with lock:
                seen["requests"] += 1
            target = head.split(b" ")[1]
            if target.startswith(b"/to/"):
                where = bytes.fromhex(target[4:].decode())
                s.sendall(b"HTTP/1.1 302 Found\r\nlocation: " + where + b"\r\ncontent-length: 0\r\n\r\n")
                continue
            text = b"reached " + head.replace(b"\r\n", b" | ")
            s.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
    except (OSError, ValueError, IndexError):
        pass
    finally:
        s.close()


def arrived(data):
    with lock:
        seen[seen["phase"]] += data


def body(s, head, data):
    def more():
        got = s.recv(65536)
        if not got:
            raise OSError("ended")
        arrived(got)
        return got
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            size = int(line.split(b":")[1])
            while len(data) < size:
                data += more()
            return data[size:]
        if line.startswith(b"transfer-encoding:"):
            while b"0\r\n\r\n" not in data:
                data += more()
            return data.split(b"0\r\n\r\n", 1)[1]
    return data


def listen(ip, port, context=None):
    af = socket.AF_INET6 if ":" in ip else socket.AF_INET
    s = socket.socket(af, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if af == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((ip, port))
    s.listen(128)

    def accept():
        while True:
            taken, _ = s.accept()
            threading.Thread(target=serve_one, args=(taken, context, not echoes(port)), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()


def echoes(port):
    """Ports whose servers answer whatever comes."""
    return port in (853, 7070)


ADDRESSES = {
    "private.ok.test": ["10.0.0.1"], "loopback.ok.test": ["127.0.0.1"], "metadata.ok.test": ["169.254.169.254"],
    "mixed.ok.test": [PUBLIC[0], "192.168.0.1"], "nothing.ok.test": None,
    "mapped.ok.test": ["::ffff:127.0.0.1"], "nat64.ok.test": ["64:ff9b::a00:1"], "cname.ok.test": ["10.0.0.9"],
    "unspecified.ok.test": ["0.0.0.0"], "linklocal.ok.test": ["169.254.7.7"], "cgnat.ok.test": ["100.64.0.1"],
    "ula.ok.test": ["fd12::1"], "v6loop.ok.test": ["::1"], "multicast.ok.test": ["224.0.0.5"],
    "expired.ok.test": [PUBLIC[1]], "foreign.ok.test": [PUBLIC[2]],
}
flips = {}


def answer(query):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1").lower())
        at += 1 + query[at]
    kind, = struct.unpack("!H", query[at + 1:at + 3])
    name = ".".join(labels)
    with lock:
        seen["names"].append(name)
    found = ADDRESSES.get(name, [PUBLIC[0]])
    if name == "flip.ok.test" and kind == 1:
        flips[name] = flips.get(name, 0) + 1
        found = [PUBLIC[0]] if flips[name] % 2 else ["127.0.0.1"]
    code = 3 if found is None or not name.endswith("ok.test") else 0
    records = b""
    count = 0
    owner = b"\xc0\x0c"
    if name == "cname.ok.test" and not code:
        inner = b"\x08internal\x04evil\x04test\x00"
        records += owner + struct.pack("!HHIH", 5, 1, 0, len(inner)) + inner
        owner, count = inner, 1
    for ip in [] if code else found:
        v6 = ":" in ip
        if kind == (28 if v6 else 1):
            data = socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, ip)
            records += owner + struct.pack("!HHIH", kind, 1, 0, len(data)) + data
            count += 1
    return query[:2] + struct.pack("!5H", 0x8180 | code, 1, count, 0, 0) + query[12:at + 5] + records


def name_server():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((RESOLVER, 53))
    while True:
        query, peer = s.recvfrom(4096)
        s.sendto(answer(query), peer)


def context_of(name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("%s/%s.pem" % (plan["dir"], name), "%s/%s.key" % (plan["dir"], name))
    context.set_alpn_protocols(["http/1.1"])
    return context


def servers():
    for ip in ("0.0.0.0", "::"):
        for port in (80, 443, 853, 3128, 8080, 7070):
            listen(ip, port)
    for ip, name in zip(PUBLIC, ("good", "expired", "foreign")):
        listen(ip, 443, context_of(name))
    for path in plan["sockets"]:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.bind("\0" + path[1:] if path.startswith("@") else path)
        if not path.startswith("@"):
            os.chmod(path, 0o777)
        s.listen(8)
        threading.Thread(target=drain, args=(s,), daemon=True).start()
    threading.Thread(target=name_server, daemon=True).start()
    if plan["proxy"]:
        threading.Thread(target=filtering_proxy, daemon=True).start()


def filtering_proxy():
    """What many put beside a sandbox: a proxy that looks at the name it is asked for."""
    s = socket.create_server(("127.0.0.1", 3129))
    while True:
        taken, _ = s.accept()
        threading.Thread(target=proxied, args=(taken,), daemon=True).start()


def proxied(s):
    try:
        s.settimeout(WAIT_S)
        data = b""
        while b"\r\n\r\n" not in data:
            data += s.recv(65536) or b"\r\n\r\n"
        method, target = data.split(b" ")[:2]
        authority = target if method == b"CONNECT" else target.split(b"/")[2]
        host, _, port = authority.decode().partition(":")
        if host != "ok.test" and not host.endswith(".ok.test"):
            s.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            return
        up = socket.create_connection((host, int(port or 80)), timeout=WAIT_S)
        if method == b"CONNECT":
            s.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            path = b"/" + target.split(b"/", 3)[3]
            up.sendall(data.replace(target, path, 1))
        threading.Thread(target=carry, args=(up, s), daemon=True).start()
        carry(s, up)
    except (OSError, ValueError, IndexError):
        pass
    finally:
        s.close()


def carry(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass


def drain(s):
    while True:
        taken, _ = s.accept()
        who = struct.unpack("iII", taken.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        if who == os.getpid():
            drained.release()
        else:
            with lock:
                seen["other"].append("a Unix socket")
        taken.close()


class Driver:
    """A process that does what it is told."""

    def __init__(self, argv, errors, env):
        handle = os.open(errors, os.O_WRONLY | os.O_CREAT, 0o600)
        left, right = socket.socketpair()
        # As a careless parent would: a connected socket and a directory at numbers that are known.
        os.dup2(right.fileno(), plan["descriptor"], inheritable=True)
        os.dup2(os.open("/", os.O_RDONLY), plan["directory"], inheritable=True)
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=handle,
                                        env=env, pass_fds=[plan["descriptor"], plan["directory"]], cwd=plan["project"])
        self.left = left

    def do(self, act):
        self.process.stdin.write((json.dumps(act) + "\n").encode())
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"gone": "the driver ended"}


def from_outside(act):
    """Somebody out here tries to reach what was opened inside."""
    try:
        with socket.create_connection((act["ip"], act["port"]), timeout=WAIT_S):
            return {"reached": "connected"}
    except OSError as error:
        return {"closed": str(error)}


world_of_its_own()
packets = capture()
threading.Thread(target=watch, args=(packets,), daemon=True).start()
servers()
environment = dict(plan["env"])
inside = Driver(plan["inside"], plan["dir"] + "/inside.err", {**environment, **plan["inside_env"]})
beside = Driver(plan["beside"], plan["dir"] + "/beside.err", environment)


def done(act, driver):
    if act["do"] == "from_outside":
        return from_outside(act)
    return driver.do(act)


for case in plan["cases"]:
    began = time.monotonic()
    before = barrier()
    seen["phase"] = "attack"
    for step in case.get("before", []):
        inside.do(step)
    attack = done(case["attack"], inside)
    between = barrier()
    seen["phase"] = "control"
    for step in case.get("before", []):
        if case["beside"]:
            beside.do(step)
    control = done(case["control"], beside if case["beside"] else inside)
    after = barrier()
    print(json.dumps({"name": case["name"], "attack": attack, "control": control,
                      "took_ms": int(1000 * (time.monotonic() - began)), "before": before, "between": between, "after": after}), flush=True)
with lock:
    print(json.dumps({"names": sorted(set(seen["names"])), "attack": seen["attack"].hex(), "control": seen["control"].hex()}), flush=True)
inside.process.stdin.close()
inside.process.wait(timeout=WAIT_S)
beside.process.kill()
