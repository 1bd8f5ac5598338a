// Flow files, written the short way. They are Node-RED's as well.

let place = 0;

/** A flow node on the tab, wired to `wires`. */
export const node = (id, type, wires, properties = {}) => ({
    id, type, z: 'tab', name: '', x: 200, y: (place += 40), wires: [wires], ...properties,
});

/** A config node. */
export const config = (id, type, properties = {}) => ({ id, type, ...properties });

/** A change node with these rules. */
export const change = (id, wires, rules) => node(id, 'change', wires, { rules });

/** A rule that sets `msg.<property>`. */
export const set = (property, to, tot = 'str') => ({ t: 'set', p: property, pt: 'msg', to, tot });

/** A rule that deletes `msg.<property>`. */
export const remove = (property) => ({ t: 'delete', p: property, pt: 'msg' });

/** A listener with its two nodes: what comes in goes through a change node with `rules` and out again. */
export const listener = (id, path, { rules = [], out = {}, ...properties } = {}) => [
    config(id, 'websocket-listener', { path, wholemsg: 'false', ...properties }),
    node(`${id}-in`, 'websocket in', [`${id}-change`], { server: id }),
    change(`${id}-change`, [`${id}-out`], rules),
    node(`${id}-out`, 'websocket out', [], { server: id, ...out }),
];

/** The same for a client. What it got and sends back is no reply: what came from a server does not go back to it. */
export const client = (id, url, { rules = [remove('_session')], out = {}, ...properties } = {}) => [
    config(id, 'websocket-client', { path: url, wholemsg: 'false', tls: '', hb: '0', subprotocol: '', ...properties }),
    node(`${id}-in`, 'websocket in', [`${id}-change`], { client: id }),
    change(`${id}-change`, [`${id}-out`], rules),
    node(`${id}-out`, 'websocket out', [], { client: id, ...out }),
];

/** Nodes that send the statuses of other nodes to all who listen at `/watch`. */
export const watched = (...ids) => [
    node('watch-status', 'status', ['watch-out'], { scope: ids }),
    config('watch', 'websocket-listener', { path: '/watch', wholemsg: 'true' }),
    node('watch-out', 'websocket out', [], { server: 'watch' }),
];

/** A flow file with one tab. */
export const flow = (...parts) => [{ id: 'tab', type: 'tab', label: 'Tab', disabled: false, info: '' }, ...parts.flat()];
