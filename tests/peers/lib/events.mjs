// What flows say about connections.

/** A message that a flow has sent as JSON. */
export const message = async (connection) => JSON.parse(await connection.next());

/** The next status event of that kind that comes from `/watch` (`watched` in flows.mjs). */
export async function event(watch, kind) {
    for (;;) {
        const { status } = await message(watch);
        if (status.event === kind) return status;
    }
}
