// The kinds of peers.

import { fileURLToPath } from 'node:url';

import { Peer, packed, unpacked } from './connection.mjs';
import { Process } from './process.mjs';
import { pythonProgram, ws } from './settings.mjs';

/** A peer that uses npm's `ws`, with the options that it has when nobody gives any. */
export async function wsPeer(scope) {
    const sockets = new Map();
    let server;
    let count = 0;
    const adopt = (id, socket) => {
        sockets.set(id, socket);
        socket.on('message', (data, binary) => {
            peer.event({ id, on: 'message', data: binary ? Buffer.from(data) : data.toString() });
        });
        socket.on('ping', () => peer.event({ id, on: 'ping' }));
        socket.on('pong', (data) => peer.event({ id, on: 'pong', data: Buffer.from(data) }));
        socket.on('close', (code, reason) => peer.event({ id, on: 'close', code, reason: String(reason) }));
        socket.on('error', () => {});
    };
    const commands = {
        open({ id, url, protocols, headers }) {
            const socket = new ws.WebSocket(url, protocols, { headers });
            socket.on('unexpected-response', (_, { statusCode, headers }) => {
                peer.event({ id, on: 'refused', status: statusCode, headers });
            });
            socket.on('open', () => peer.event({ id, on: 'open', protocol: socket.protocol }));
            adopt(id, socket);
        },
        send: ({ id, data }) => sockets.get(id).send(data),
        fragments({ id, parts }) {
            parts.forEach((part, at) => sockets.get(id).send(part, { fin: at === parts.length - 1 }));
        },
        ping: ({ id, data }) => sockets.get(id).ping(data),
        close: ({ id, code, reason }) => sockets.get(id).close(code, reason),
        abort: ({ id }) => sockets.get(id).terminate(),
        listen({ port, protocols }) {
            const handleProtocols = (offered) => protocols.find((name) => offered.has(name)) ?? false;
            server = new ws.WebSocketServer({ host: '127.0.0.1', port, handleProtocols });
            server.on('listening', () => peer.event({ on: 'listening', port: server.address().port }));
            server.on('error', (error) => scope.onFailure(() => `the server of ws: ${error}`));
            server.on('connection', (socket, { url, headers }) => {
                const id = `s${++count}`;
                adopt(id, socket);
                peer.event({ id, on: 'open', path: url, headers, protocol: socket.protocol });
            });
        },
        stop() {
            for (const socket of server.clients) socket.close(1012, 'restart');
            server.close(() => peer.event({ on: 'stopped' }));
        },
    };
    const peer = new Peer((command) => commands[command.do](command));
    scope.defer(() => {
        for (const socket of sockets.values()) socket.terminate();
        server?.close();
    });
    return peer;
}
wsPeer.label = 'ws';

/** A peer that uses Python's `websockets`. */
export async function pythonPeer(scope) {
    const onLine = (line) => {
        const { data, ...event } = JSON.parse(line);
        peer.event(data ? { ...event, data: unpacked(data) } : event);
    };
    const program = fileURLToPath(new URL('../python/peer.py', import.meta.url));
    const python = new Process(scope, 'Python', pythonProgram, ['-u', program], { onLine });
    const peer = new Peer(({ data, parts, ...command }) => {
        if (data !== undefined) command.data = packed(data);
        if (parts !== undefined) command.parts = parts.map(packed);
        python.child.stdin.write(`${JSON.stringify(command)}\n`);
    });
    return peer;
}
pythonPeer.label = 'websockets';
