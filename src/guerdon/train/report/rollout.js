// All that is known of one rollout.

const PICTURE = "data:image/png;base64,";
const OPENED = 4000; // characters of a text before one asks for the rest

function rolloutDetail(row, samples, query, close) {
  const file = `rollouts/step-${String(row.step).padStart(6, "0")}.parquet`;
  const text = (number) => fullText(samples, number, query, file);
  const messages = (pairs) =>
    pairs.flatMap(([role, number]) => [role ? make("p", { class: "role" }, visible(role)) : null, ...text(number)]);
  const table = (title, entries) => {
    if (!entries.length) return [];
    const lines = entries.map(([name, value]) =>
      make("tr", {}, make("td", {}, visible(name)), make("td", { class: "value" }, value)),
    );
    return [make("h3", {}, title), make("table", {}, make("tbody", {}, lines))];
  };
  const named = (pairs) => pairs.map(([name, number]) => [samples.texts[name], text(number)]);
  const ended = { true: " · ended by itself", false: " · cut at the length limit" }[row.finished] ?? "";
  const tokens = row.length === null ? "–" : `${grouped(row.length)} token${row.length === 1 ? "" : "s"}`;
  const sign = row.advantage > 0 ? "+" : "";
  const figures = { score: figure(row.score), advantage: sign + figure(row.advantage), length: tokens };
  const outcome = row.outcome ? `${MARKS[row.outcome]} ${row.outcome}` : "Rollout";
  return [
    make(
      "p",
      {},
      make("strong", { class: row.outcome }, outcome),
      make("span", { class: "where" }, `step ${row.step} · group ${row.group}${ended}`),
      make("button", { class: "close", type: "button", "aria-label": "Close", click: close }, "×"),
    ),
    row.reason === null ? null : make("div", { class: "why" }, text(row.reason)),
    make(
      "dl",
      { class: "figures" },
      Object.entries(figures).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    ),
    make("h3", {}, "Prompt"),
    ...messages(row.prompt),
    make("h3", {}, "Completion"),
    ...messages(row.completion),
    ...table("Parts", samples.parts.map((name, k) => [name, figure(row.parts[k])])),
    ...table("Columns", named(row.columns)),
    ...table("Details", named(row.details)),
  ].filter((element) => element !== null);
}

/** A text, the rest of a long one on demand, and where the whole is when the report does not hold it. */
function fullText(samples, number, query, file) {
  const text = samples.texts[number];
  const whole = samples.cut[number];
  if (!text.trim()) {
    return [make("p", { class: "rest" }, text ? `Only white space: ${text.length} characters.` : "Empty.")];
  }
  if (text.startsWith(PICTURE) && !whole) return [make("img", { class: "picture", src: text, alt: "The picture" })];
  const block = make("pre", {}, visible(text.slice(0, OPENED), query));
  const rest = make("p", { class: "rest" });
  if (text.length > OPENED) {
    const open = make("button", { type: "button" }, `Show all ${grouped(text.length)} characters`);
    open.addEventListener("click", () => {
      block.replaceChildren(visible(text, query));
      open.remove();
    });
    rest.append(open);
  }
  if (whole) {
    const held = `The report holds the first ${grouped(text.length)} of ${grouped(whole)} characters`;
    rest.append(`${held}; the whole is in ${file}.`);
  }
  return rest.childNodes.length ? [block, rest] : [block];
}
