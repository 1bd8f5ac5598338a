"""A peer that uses `websockets`: commands come in by standard input, events go out by standard output, both as JSON
lines; lib/connection.mjs says which."""

import asyncio
import base64
import json
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

sockets = {}
server = None
arrivals = 0


def tell(on, **fields):
    print(json.dumps({"on": on, **fields}), flush=True)


def packed(data):
    return {"text": data} if isinstance(data, str) else {"base64": base64.b64encode(data).decode()}


def unpacked(data):
    return data["text"] if "text" in data else base64.b64decode(data["base64"])


async def read(id, socket):
    """Tells what comes in by a connection, until it ends."""
    try:
        while True:
            tell("message", id=id, data=packed(await socket.recv()))
    except ConnectionClosed:
        await socket.wait_closed()
        tell("close", id=id, code=socket.close_code, reason=socket.close_reason)


async def do_open(id, url, protocols, headers):
    try:
        socket = await connect(
            url,
            subprotocols=protocols or None,
            additional_headers=headers,
            max_size=None,
            ping_interval=None,
            proxy=None,
        )
    except InvalidStatus as refusal:
        answer = refusal.response
        headers = {name.lower(): value for name, value in answer.headers.raw_items()}
        return tell("refused", id=id, status=answer.status_code, headers=headers)
    sockets[id] = socket
    tell("open", id=id, protocol=socket.subprotocol or "")
    await read(id, socket)


async def on_client(socket):
    global arrivals
    arrivals += 1
    id = f"s{arrivals}"
    sockets[id] = socket
    headers = {name.lower(): value for name, value in socket.request.headers.raw_items()}
    tell("open", id=id, path=socket.request.path, headers=headers, protocol=socket.subprotocol or "")
    await read(id, socket)


async def do_send(id, data):
    await sockets[id].send(unpacked(data))


async def do_fragments(id, parts):
    await sockets[id].send([unpacked(part) for part in parts])


async def do_ping(id, data):
    data = unpacked(data)
    await (await sockets[id].ping(data))
    tell("pong", id=id, data=packed(data if isinstance(data, bytes) else data.encode()))


async def do_close(id, code=1000, reason=""):
    await sockets[id].close(code, reason)


async def do_abort(id):
    sockets[id].transport.abort()


async def do_listen(port, protocols):
    global server
    server = await serve(
        on_client,
        "127.0.0.1",
        port,
        subprotocols=protocols or None,
        max_size=None,
        ping_interval=None,
    )
    tell("listening", port=server.sockets[0].getsockname()[1])


async def do_stop():
    server.close(code=1012, reason="restart")
    await server.wait_closed()
    tell("stopped")


async def main():
    commands = asyncio.StreamReader(limit=2**26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    running = set()
    # Messages of one connection go out in the order of the commands: each waits for the one before it.
    last = {}
    while line := await commands.readline():
        command = json.loads(line)
        do = globals()[f"do_{command.pop('do')}"]
        id = command.get("id")
        before = last.get(id) if do is not do_open else None

        async def run(do=do, command=command, before=before):
            if before:
                await asyncio.wait([before])
            await do(**command)

        task = asyncio.create_task(run())
        running.add(task)
        task.add_done_callback(finished(running))
        if do in (do_send, do_fragments):
            last[id] = task


def finished(running):
    def forget(task):
        running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)

    return forget


asyncio.run(main())
