"""Runs the cases; `run` is what to call. For Python 2.7, which the testsuite needs, without other modules."""
from __future__ import print_function

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
AGENT = "flowbay"
# No case takes longer, not even those of section 9 with a debug build.
PATIENCE_S = 120


class Socket(object):
    """As much of a WebSocket client as it takes to talk to a flow: short text messages."""

    def __init__(self, url):
        host, port, path = re.match(r"ws://([^:/]+):(\d+)(/.*)", url).groups()
        self.stream = socket.create_connection((host, int(port)), PATIENCE_S)
        self.stream.sendall((
            "GET %s HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" % (path, host, port)
        ).encode())
        self.unread = b""
        while b"\r\n\r\n" not in self.unread:
            self._read_more()
        head, self.unread = self.unread.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise Exception("%s answers %r" % (url, head))

    def send(self, message):
        payload = json.dumps(message).encode()
        self.stream.sendall(b"\x81" + struct.pack(">BH", 0x80 | 126, len(payload)) + b"\0\0\0\0" + payload)

    def receive(self):
        """The next message as text; `None` at the end."""
        while True:
            first, short = struct.unpack(">BB", self._read(2))
            length = struct.unpack(">H", self._read(2))[0] if short & 127 == 126 else short & 127
            payload = self._read(length)
            if first & 15 == 8:
                return None
            if first & 15 == 1:
                return payload.decode()

    def _read(self, count):
        while len(self.unread) < count:
            self._read_more()
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def _read_more(self):
        more = self.stream.recv(65536)
        if not more:
            raise Exception("the connection ended")
        self.unread += more


def free_port():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    return port


def eventually(what, look):
    end = time.time() + 30
    while time.time() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise Exception("not in time: " + what)


class Host(object):
    """A host that runs the flow, whose client knows the port of the fuzzing server."""

    def __init__(self, program, work, server_port):
        flow = open(os.path.join(HERE, "flow.json")).read().replace("{{PORT}}", str(server_port))
        with open(os.path.join(work, "flow.json"), "w") as out:
            out.write(flow)
        self.log_file = os.path.join(work, "host.log")
        command = [program, "run", os.path.join(work, "flow.json"), "-p", "0", "--no-shipped-plugins",
                   "--plugins", os.path.join(work, "plugins")]
        with open(self.log_file, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        eventually("started flows", lambda: "started flows" in self.log())
        self.address = re.search(r"listening on http://([\d.:]+)", self.log()).group(1)

    def log(self):
        return open(self.log_file).read()

    def stop(self):
        self.process.terminate()
        self.process.wait()


def wstest(work, mode, spec):
    spec_file = os.path.join(work, mode + ".json")
    with open(spec_file, "w") as out:
        json.dump(spec, out)
    log = open(os.path.join(work, mode + ".log"), "w")
    wstest_program = os.path.join(work, "venv", "bin", "wstest")
    return subprocess.Popen([wstest_program, "-m", mode, "-s", spec_file], stdout=log, stderr=subprocess.STDOUT, cwd=work)


def as_listener(program, work, cases, out):
    """The testsuite's client against the flow's listener."""
    host = Host(program, work, free_port())
    try:
        server = {"agent": AGENT, "url": "ws://%s/echo" % host.address}
        tests = wstest(work, "fuzzingclient", {
            "outdir": out, "servers": [server], "cases": cases, "exclude-cases": [], "exclude-agent-cases": {},
        })
        if tests.wait() != 0:
            raise Exception("the testsuite failed: see %s/fuzzingclient.log" % work)
    finally:
        host.stop()


def as_client(program, work, cases, out):
    """The flow's client against the testsuite's server: a connection for each case."""
    port = free_port()
    server = "ws://127.0.0.1:%d" % port
    tests = wstest(work, "fuzzingserver", {
        "url": server, "outdir": out, "cases": cases, "exclude-cases": [], "exclude-agent-cases": {}, "webport": 0,
    })
    host = None
    try:
        count = int(eventually("the testsuite's server listens", lambda: case_count(server)))
        host = Host(program, work, port)
        drive = Socket("ws://%s/drive" % host.address)
        for case in range(1, count + 1):
            visit(drive, "%s/runCase?case=%d&agent=%s" % (server, case, AGENT))
        visit(drive, "%s/updateReports?agent=%s" % (server, AGENT))
        eventually("the reports are written", lambda: os.path.exists(os.path.join(out, "index.json")))
    finally:
        tests.terminate()
        tests.wait()
        if host:
            host.stop()


def case_count(server):
    try:
        return Socket(server + "/getCaseCount").receive()
    except (IOError, OSError):
        return None


def visit(drive, url):
    """Has the flow's client connect, and waits until that connection has ended."""
    drive.send({"action": "connect", "url": url})
    while True:
        status = json.loads(drive.receive())["status"]
        about = status.get("_session", {}).get("url", "")
        if status.get("event") == "error" and "runCase" not in about:
            raise Exception("could not connect: %s" % status)
        if status.get("event") == "disconnect" and about == url:
            return


def check(role, out, everything):
    """Compares with what is expected; the numbers of cases that passed and that did not."""
    expected = json.load(open(os.path.join(HERE, "expected.json")))
    results = json.load(open(os.path.join(out, "index.json")))[AGENT]
    passed, failed = 0, 0
    for case in sorted(results, key=lambda case: [int(part) for part in case.split(".")]):
        result = [results[case]["behavior"], results[case]["behaviorClose"]]
        # What is not named there is as good as it can be.
        wanted = expected[role].get(case, ["OK", "OK"])
        if result == wanted:
            passed += 1
        else:
            failed += 1
            print("%s: case %s: %s, expected %s" % (role, case, "/".join(result), "/".join(wanted)))
    if everything and len(results) != expected["cases"]:
        failed += 1
        print("%s: %d cases ran, expected %d" % (role, len(results), expected["cases"]))
    kinds = {}
    for result in results.values():
        kinds[result["behavior"]] = kinds.get(result["behavior"], 0) + 1
    print("%s: %s" % (role, ", ".join("%d %s" % (kinds[kind], kind) for kind in sorted(kinds))))
    return passed, failed


def main():
    program, work, role, cases = sys.argv[1:]
    everything = "10.*" in cases and "1.*" in cases
    passed, failed = 0, 0
    for name, run in [("listener", as_listener), ("client", as_client)]:
        if role in (name, "all"):
            out = os.path.join(work, name)
            shutil.rmtree(out, ignore_errors=True)
            begin = time.time()
            run(os.path.abspath(program), work, cases.split(","), out)
            print("%s: took %d s, reports in %s" % (name, time.time() - begin, out))
            result = check(name, out, everything)
            passed, failed = passed + result[0], failed + result[1]
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
