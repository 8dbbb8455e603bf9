globalThis.niivue = {};
