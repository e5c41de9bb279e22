// Elements and text. Whatever the run wrote reaches the page as text nodes, never as markup.

function make(name, attributes, ...children) {
  return build(document.createElement(name), attributes, children);
}

function shape(name, attributes, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const CONTROLS = "\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f";
const MARKS_OF_DIRECTION_AND_WIDTH = "\\u00ad\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff";
const HIDDEN = new RegExp(`[\\p{Cs}${CONTROLS}${MARKS_OF_DIRECTION_AND_WIDTH}]+`, "gu");

/** Text as it is, with what has no glyph (control characters, lone surrogates, marks of direction) made visible. */
function visible(text, query = "") {
  const fragment = document.createDocumentFragment();
  let begin = 0;
  for (const match of text.matchAll(HIDDEN)) {
    fragment.append(marked(text.slice(begin, match.index), query));
    const codes = [...match[0]].map(escaped).join("");
    fragment.append(make("span", { class: "control", title: "characters that have no glyph" }, codes));
    begin = match.index + match[0].length;
  }
  fragment.append(marked(text.slice(begin), query));
  return fragment;
}

function escaped(character) {
  const code = character.codePointAt(0).toString(16);
  return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
}

function marked(text, query) {
  const lower = text.toLowerCase();
  if (!query || lower.length !== text.length) return text;
  const fragment = document.createDocumentFragment();
  let begin = 0;
  for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, begin)) {
    fragment.append(text.slice(begin, at), make("mark", {}, text.slice(at, at + query.length)));
    begin = at + query.length;
  }
  fragment.append(text.slice(begin));
  return fragment;
}

/** A number to three significant digits. */
function figure(x) {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x);
  let text = x.toPrecision(3);
  if (x === 0) text = "0";
  else if (size >= 1e7 || size < 1e-3) text = x.toExponential(2);
  else if (size >= 999.5) text = grouped(Math.round(x));
  return text.replaceAll("-", "−");
}

/** A number with so many decimals, so that points stand below one another. */
function aligned(x, decimals = 3) {
  return x === null || Math.abs(x) >= 1000 ? figure(x) : x.toFixed(decimals).replace("-", "−");
}

function percent(x) {
  if (x === null || x === undefined) return "–";
  const text = x > 0 && x < 0.0005 ? "<0.1" : (100 * x).toFixed(1).replace(/\.0$/, "");
  return text + "\u00a0%";
}

function grouped(n) {
  return String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return minutes ? `${minutes} min ${String(rest).padStart(2, "0")} s` : `${rest} s`;
}
