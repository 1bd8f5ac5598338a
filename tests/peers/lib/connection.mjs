// One WebSocket connection of a peer, driven from here wherever the peer's code runs.
//
// Every kind of peer (npm's ws, Python's websockets, a page in Chromium) speaks the same commands and events, so a case
// is written once for all of them:
//
//   commands  {do: "open", url, protocols, headers}   {do: "send", data}   {do: "fragments", parts}   {do: "ping", data}
//             {do: "close", code, reason}   {do: "abort"}      for servers also  {do: "listen", port, protocols}
//             and {do: "stop"}
//   events    {on: "open", protocol, path, headers}   {on: "refused", status, headers}   {on: "message", data}
//             {on: "ping"}   {on: "pong", data}   {on: "close", code, reason}          for servers also {on: "listening"}
//             and {on: "stopped"}
//
// Each has an `id`, the connection's. Data is a string or a Buffer here, and {text} or {base64} between processes.

import { Queue, within, PATIENCE } from './waiting.mjs';

/** Data as it goes between processes. */
export const packed = (data) =>
    typeof data === 'string' ? { text: data } : { base64: Buffer.from(data).toString('base64') };

/** The opposite of `packed`. */
export const unpacked = ({ text, base64 }) => (base64 === undefined ? text : Buffer.from(base64, 'base64'));

/** One connection. */
export class Connection {
    #command;
    #messages = new Queue();
    #pongs = new Queue();
    #pings = new Queue();
    #end = {};

    /** A connection of a peer that obeys `command`; the peer gives its events to `event`. */
    constructor(id, command) {
        this.id = id;
        this.#command = (fields) => command({ id, ...fields });
        const promise = (name) => (this[name] = new Promise((...ends) => ([this.#end[name]] = ends)));
        /** What was agreed on: {protocol, path, headers}, or {refused: status, headers}. */
        promise('opened');
        /** How it has ended: {code, reason}. */
        promise('closed');
    }

    event({ on, ...fields }) {
        switch (on) {
            case 'open': return this.#end.opened(fields);
            case 'refused': return this.#end.opened({ refused: fields.status, headers: fields.headers });
            case 'message': return this.#messages.push(fields.data);
            case 'ping': return this.#pings.push(null);
            case 'pong': return this.#pongs.push(fields.data);
            case 'close':
                this.#messages.fail(new Error(`closed: ${fields.code} ${fields.reason}`));
                return this.#end.closed({ code: fields.code, reason: fields.reason });
            default: throw new Error(`unknown event ${on}`);
        }
    }

    /** Begins to connect. */
    open(url, { protocols = [], headers = {} } = {}) {
        this.#command({ do: 'open', url, protocols, headers });
        return within(PATIENCE, this.opened, `an answer from ${url}`);
    }

    /** Sends a string as text or a Buffer as binary message. */
    send(data) {
        this.#command({ do: 'send', data });
    }

    /** Sends the parts of one message in a frame each. */
    sendFragments(parts) {
        this.#command({ do: 'fragments', parts });
    }

    /** The next message. */
    next() {
        return this.#messages.next('a message');
    }

    /** Sends a ping and returns the data of the pong. */
    async ping(data) {
        this.#command({ do: 'ping', data });
        return this.#pongs.next('a pong');
    }

    /** Waits for a ping of the other side. */
    pinged() {
        return this.#pings.next('a ping');
    }

    /** Closes the connection and returns how it has ended. */
    close(code, reason) {
        this.#command({ do: 'close', code, reason });
        return this.end();
    }

    /** Ends the connection without a close frame. */
    abort() {
        this.#command({ do: 'abort' });
        return this.end();
    }

    /** Waits for the end. */
    end() {
        return within(PATIENCE, this.closed, 'the end of the connection');
    }
}

/** A peer: connections by their ids, and whoever executes its commands. */
export class Peer {
    #connections = new Map();
    #arrivals = new Queue();
    #own = new Queue();
    #next = 1;

    /** A peer whose commands `execute` carries out. */
    constructor(execute) {
        this.execute = execute;
    }

    /** Takes an event. One with an id that nobody knows is the first of a connection to a server. */
    event({ id, ...event }) {
        if (id === undefined) return this.#own.push(event);
        let connection = this.#connections.get(id);
        if (!connection) {
            connection = new Connection(id, this.execute);
            this.#connections.set(id, connection);
            this.#arrivals.push(connection);
        }
        connection.event(event);
    }

    /** Connects as a client; fails when it is refused. */
    async connect(url, options) {
        const connection = this.connection();
        const opened = await connection.open(url, options);
        if (opened.refused !== undefined) throw new Error(`${url} refused with ${opened.refused}`);
        return Object.assign(connection, opened);
    }

    /** Connects as a client and returns {refused: status, headers}; fails when it is accepted. */
    async refused(url, options) {
        const opened = await this.connection().open(url, options);
        if (opened.refused === undefined) throw new Error(`${url} is open`);
        return opened;
    }

    /** A client's connection that does not exist yet. */
    connection() {
        const connection = new Connection(`c${this.#next++}`, this.execute);
        this.#connections.set(connection.id, connection);
        return connection;
    }

    /** Starts to listen and returns the port. */
    async listen({ port = 0, protocols = [] } = {}) {
        this.execute({ do: 'listen', port, protocols });
        return (await this.#own.next('the server to listen')).port;
    }

    /** Stops listening and ends all connections. */
    async stop() {
        this.execute({ do: 'stop' });
        await this.#own.next('the server to stop');
    }

    /** The next connection that a client has made. */
    async accept() {
        const connection = await this.#arrivals.next('a client');
        return Object.assign(connection, await connection.opened);
    }
}
