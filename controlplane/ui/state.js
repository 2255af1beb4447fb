// What all modules share: the last answer of the daemon, and what lower modules ask of the page as a whole.

export const looking = {
  status: null,
  overrides: new Map(),
  access: null,
  page: null,
  answeredAt: null,      // Date.now() of the last answer
  failures: 0,
  retryAt: 0,
  due: 1000,             // how old an answer gets while all is well, in ms
  refusal: "",
  ends: new Set(),       // what is open to the daemon, to be aborted together
  waiters: [],
};

/** Filled in by app.js: a module that draws one view need not know the others. */
export const act = {
  show() {},             // everything, from the last answer
  choose() {},           // a view by its name; with true the focus goes there too
};
