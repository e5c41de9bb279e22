// The list of rollouts: filtered, sorted, grouped by prompt, walked through with the keys.

const SHOWN = 400; // rows of the list before one asks for more
const PARTS = 3; // parts that have a column; the others are among the details
const MARKS = { right: "✓", wrong: "✗", abstained: "∅" };

function rolloutsBrowser(section, samples) {
  const rows = rowsOf(samples.rows);
  if (!rows.length) {
    section.append(make("p", { class: "empty" }, "No rollouts have been sampled."));
    return { pick: () => {} };
  }
  const steps = [...new Set(rows.map((row) => row.step))];
  const state = { step: steps.at(-1), query: "", outcome: "", sort: "score", down: true, grouped: true, limit: SHOWN };
  const columns = listColumns(samples);
  const list = make("div", { class: "list" });
  const detail = make("article", { class: "chosen" });
  const found = section.querySelector("output");
  const filters = rolloutFilters(samples, steps, set);
  let [walked, chosen] = [[], null];
  section.append(filters.element, make("div", { class: "browser" }, list, detail));

  list.addEventListener("keydown", (event) => {
    const at = walked.indexOf(chosen);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: walked.length - 1 }[event.key];
    if (to === undefined || event.target.tagName === "BUTTON") return;
    event.preventDefault();
    if (walked[to]) choose(walked[to], true);
  });
  detail.addEventListener("keydown", (event) => event.key === "Escape" && close());

  function set(change) {
    Object.assign(state, { limit: SHOWN }, change);
    update();
  }

  function update() {
    const within = rows.filter((row) => state.step === null || row.step === state.step);
    const matching = within.filter(mentioning(state.query, samples.texts));
    filters.count(matching);
    const kept = matching.filter((row) => !state.outcome || row.outcome === state.outcome);
    const order = columns.find((column) => column.key === state.sort);
    const groups = (state.grouped ? byPrompt(kept) : [kept]).map((members) => sorted(members, order, state.down));
    walked = groups.flat().slice(0, state.limit);
    const others = samples.total > rows.length ? `, of ${grouped(samples.total)} in rollouts/` : "";
    const right = samples.right ? ` · right means ${samples.right}` : "";
    found.replaceChildren(`${grouped(kept.length)} of ${grouped(rows.length)} shown${others}${right}`);
    draw(groups, kept.length);
    choose(walked.includes(chosen) ? chosen : (walked[0] ?? null), false);
  }

  function draw(groups, total) {
    const shown = columns.filter((column) => !column.only || column.only(state));
    const body = make("tbody", {});
    let left = state.limit;
    for (const members of groups) {
      if (left <= 0) break;
      if (state.grouped) body.append(groupRow(members, shown.length));
      for (const row of members.slice(0, left)) body.append(listRow(row, shown));
      left -= members.length;
    }
    const head = make("thead", {}, make("tr", {}, shown.map(columnHead)));
    list.replaceChildren(make("table", { role: "grid", "aria-label": "Rollouts" }, head, body));
    if (!total) list.append(make("p", { class: "note" }, "No rollout matches."));
    if (total <= state.limit) return;
    const next = `Show ${grouped(Math.min(SHOWN, total - state.limit))} more`;
    const more = make("button", { type: "button", click: () => set({ limit: state.limit + SHOWN }) }, next);
    list.append(make("p", { class: "note" }, more));
  }

  function columnHead(column) {
    const ordered = state.sort === column.key;
    const order = ordered ? (state.down ? "descending" : "ascending") : null;
    const sort = () => set({ sort: column.key, down: ordered ? !state.down : true });
    const label = column.value
      ? make("button", { type: "button", title: column.title, click: sort }, visible(column.name))
      : make("span", {}, column.name);
    if (ordered) label.append(state.down ? " ↓" : " ↑");
    return make("th", { class: column.classes, scope: "col", "aria-sort": order }, label);
  }

  function groupRow(members, span) {
    const whole = rows.filter((row) => row.step === members[0].step && row.group === members[0].group);
    const scores = whole.map((row) => row.score).filter((x) => x !== null);
    const mean = scores.reduce((a, b) => a + b, 0) / scores.length;
    const signal = scores.every((x) => x === scores[0]) ? ", no signal" : "";
    const step = state.step === null ? `step ${members[0].step} · ` : "";
    const size = `${whole.length} rollout${whole.length > 1 ? "s" : ""}`;
    const tally = `${step}${size} · ${scores.length ? `mean ${figure(mean)}${signal}` : "no scores"}`;
    const question = visible(excerpt(samples, members[0].prompt.slice(-1), 400), state.query);
    const parts = [make("span", { class: "prompt" }, question), make("span", { class: "tally" }, tally)];
    return make("tr", { class: "group" }, make("th", { colspan: span, scope: "rowgroup" }, make("div", {}, parts)));
  }

  function listRow(row, shown) {
    const cells = shown.map((column) => make("td", { class: column.classes }, column.cell(row, state)));
    row.element = make("tr", { role: "row", tabindex: -1, click: () => choose(row, true) }, cells);
    return row.element;
  }

  function choose(row, open) {
    chosen?.element.removeAttribute("aria-selected");
    chosen?.element.setAttribute("tabindex", -1);
    chosen = row;
    detail.replaceChildren(...(row ? rolloutDetail(row, samples, state.query, close) : []));
    detail.scrollTop = 0;
    detail.classList.toggle("open", open);
    if (!row) return;
    row.element.setAttribute("aria-selected", "true");
    row.element.setAttribute("tabindex", 0);
    if (open) row.element.focus();
  }

  function close() {
    detail.classList.remove("open");
  }

  update();
  return {
    /** Show the rollouts sampled nearest to a step. */
    pick(step) {
      const nearest = steps.reduce((best, s) => (Math.abs(s - step) < Math.abs(best - step) ? s : best));
      filters.step.value = nearest;
      set({ step: nearest });
      section.scrollIntoView({ behavior: "smooth" });
    },
  };
}

function rowsOf(columns) {
  const names = Object.keys(columns);
  const count = names.length ? columns[names[0]].length : 0;
  return Array.from({ length: count }, (_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
}

function rolloutFilters(samples, steps, set) {
  const last = steps.at(-1);
  const step = make(
    "select",
    { change: () => set({ step: step.value === "all" ? null : Number(step.value) }) },
    make("option", { value: "all" }, "all sampled"),
    steps.map((value) => make("option", { value, selected: value === last }, value)),
  );
  const search = make("input", {
    type: "search",
    placeholder: "in prompts, completions, reasons",
    input: () => set({ query: search.value.toLowerCase() }),
  });
  const titles = { right: samples.right, wrong: `not ${samples.right}`, abstained: "no score, with a reason" };
  const counts = {};
  const outcomes = (samples.right ? ["", "right", "wrong", "abstained"] : ["", "abstained"]).map((value) => {
    counts[value] = make("small", {});
    const change = () => set({ outcome: value });
    const input = make("input", { type: "radio", name: "outcome", value, checked: !value, change });
    return make("label", { title: titles[value] }, input, make("span", {}, value || "all", " ", counts[value]));
  });
  const group = make("input", { type: "checkbox", checked: true, change: () => set({ grouped: group.checked }) });
  return {
    step,
    element: make(
      "div",
      { class: "filters" },
      make("label", {}, "Step", step),
      make("label", {}, "Search", search),
      make("fieldset", { "aria-label": "Outcome" }, outcomes),
      make("label", {}, group, "by prompt"),
    ),
    count(rows) {
      for (const [outcome, element] of Object.entries(counts)) {
        element.textContent = rows.filter((row) => !outcome || row.outcome === outcome).length;
      }
    },
  };
}

function listColumns(samples) {
  const number = (key, name, value, cell, more) => ({ key, name, value, cell, classes: "number figure", ...more });
  const text = (key, read, more) => ({
    key,
    name: key,
    classes: "text",
    cell: (row, { query }) => visible(excerpt(samples, read(row), 160), query),
    ...more,
  });
  const mark = (row) => make("span", { class: row.outcome, title: row.outcome }, MARKS[row.outcome] ?? "");
  const size = (row) => (row.length === null ? "–" : grouped(row.length) + (row.finished === false ? "…" : ""));
  const part = (name, k) => {
    const read = (row) => row.parts[k];
    const more = { title: `part ${name}`, classes: "number wider" };
    return number(`part ${k}`, name, read, (row) => aligned(read(row)), more);
  };
  return [
    { key: "mark", name: "", classes: "mark", cell: mark },
    number("step", "step", (row) => row.step, (row) => row.step, { only: (s) => s.step === null && !s.grouped }),
    number("score", "score", (row) => row.score, (row) => aligned(row.score)),
    ...samples.parts.slice(0, PARTS).map(part),
    number("advantage", "adv.", (row) => row.advantage, (row) => aligned(row.advantage, 2), { title: "advantage" }),
    number("length", "length", (row) => row.length, size, { title: "tokens; … where it was cut at the limit" }),
    text("prompt", (row) => row.prompt.slice(-1), { only: (s) => !s.grouped }),
    text("completion", (row) => row.completion),
  ];
}

function excerpt(samples, messages, size) {
  const written = (text) => (text.startsWith(PICTURE) ? "a picture" : text);
  const text = messages.map(([, number]) => written(samples.texts[number])).join(" ⏎ ");
  return text.slice(0, size).replace(/\s*\n\s*/g, " ⏎ ");
}

/** Whether a row has the query in its prompt, completion, reason, columns or details. */
function mentioning(query, texts) {
  if (!query) return () => true;
  const hits = new Set(texts.flatMap((text, i) => (text.toLowerCase().includes(query) ? [i] : [])));
  return (row) =>
    hits.has(row.reason) ||
    [row.prompt, row.completion, row.columns, row.details].flat().some(([, number]) => hits.has(number));
}

function byPrompt(rows) {
  const groups = new Map();
  for (const row of rows) {
    const key = `${row.step}:${row.group}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  return [...groups.values()];
}

/** Rows by a column's values; those without one last, whatever the direction. */
function sorted(rows, { value }, down) {
  return [...rows].sort((first, second) => {
    const [a, b] = [value(first), value(second)];
    if (a === null || b === null) return (a === null) - (b === null);
    return down ? b - a : a - b;
  });
}
