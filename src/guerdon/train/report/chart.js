// What every chart is made of: scales, ticks, a frame, smoothing.

function scale([low, high], [begin, end]) {
  return (x) => begin + ((x - low) / (high - low)) * (end - begin);
}

/** Round numbers from low to high, about so many, and the size of the steps between them. */
function ticks(low, high, count, whole = false) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  let size = [1, 2, 5, 10].find((m) => m * power >= rough * 0.999) * power;
  if (whole) size = Math.max(1, Math.round(size));
  const values = [];
  for (let k = Math.ceil(low / size - 1e-9); k * size <= high + size * 1e-9; k++) values.push(k * size);
  return { values, size };
}

/** An axis that holds the values: its ends are round, 0 where all are positive, and not stretched by a few outliers. */
function axis(values, { height, ceiling = Infinity }) {
  const count = height > 200 ? 5 : 3;
  const sorted = values.filter((x) => x !== null).sort((a, b) => a - b);
  const quantile = (q) => sorted[Math.round(q * (sorted.length - 1))];
  let [low, high] = [sorted[0], sorted[sorted.length - 1]];
  const [bottom, top] = [quantile(0.02), quantile(0.98)];
  const usual = top - bottom;
  if (usual > 0 && high > top + 3 * usual) high = top + usual / 2;
  if (usual > 0 && low < bottom - 3 * usual) low = bottom - usual / 2;
  if (low >= 0 && (low < 0.9 * high || low === high)) low = 0;
  if (low === high) [low, high] = low ? [1.1 * low, 0.9 * low] : [0, Math.min(1, ceiling)];
  const { size } = ticks(low, high, count);
  const [first, last] = [Math.floor(low / size + 1e-9), Math.ceil(high / size - 1e-9)];
  const marks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * size);
  return {
    range: [first * size, Math.min(last * size, ceiling)],
    ticks: marks.filter((value) => value <= ceiling * (1 + 1e-9)),
    decimals: Math.min(12, Math.max(0, -Math.floor(Math.log10(size) + 1e-9))),
  };
}

/** A centred mean with Gaussian weights over about a seventh of the run; gaps stay gaps. */
function smooth(values) {
  const width = Math.max(1, values.length / 33);
  const reach = Math.ceil(3 * width);
  return values.map((value, i) => {
    if (value === null) return null;
    let [sum, weights] = [0, 0];
    for (let j = Math.max(0, i - reach); j <= Math.min(values.length - 1, i + reach); j++) {
      if (values[j] === null) continue;
      const weight = Math.exp(-0.5 * ((j - i) / width) ** 2);
      sum += weight * values[j];
      weights += weight;
    }
    return sum / weights;
  });
}

/** A path through the points there are, interrupted where more are missing than usual. */
function path(steps, values, x, y) {
  const present = values.flatMap((value, i) => (value === null ? [] : [i]));
  const gaps = present.slice(1).map((i, k) => i - present[k]);
  const usual = [...gaps].sort((a, b) => a - b)[Math.floor(gaps.length / 2)];
  const points = present.map((i, k) => {
    const command = k && gaps[k - 1] <= 2.5 * usual ? "L" : "M";
    return `${command}${x(steps[i]).toFixed(1)} ${y(values[i]).toFixed(1)}`;
  });
  return points.join("");
}

/** An empty chart: axes, ticks, labels. Returns the drawing with its scales and the box of the plot. */
function frame({ width, height, label, domain, vertical, format, below, whole = true }) {
  const texts = vertical.ticks.map((value) => format(value, vertical.decimals));
  const left = 12 + 6.3 * Math.max(2, ...texts.map((text) => text.length));
  const box = { left, right: width - 8, top: 8, bottom: height - 22 };
  const [x, y] = [scale(domain, [box.left, box.right]), scale(vertical.range, [box.bottom, box.top])];
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, tabindex: 0 });
  const write = (text, at, down, anchor) => svg.append(shape("text", { x: at, y: down, "text-anchor": anchor }, text));
  vertical.ticks.forEach((value, i) => {
    const at = Math.round(y(value)) + 0.5;
    svg.append(shape("line", { class: i ? "level" : "base", x1: box.left, x2: box.right, y1: at, y2: at }));
    write(texts[i], box.left - 7, at + 4, "end");
  });
  for (const value of ticks(domain[0], domain[1], Math.max(2, (box.right - box.left) / 60), whole).values) {
    const at = x(value);
    svg.append(shape("line", { class: "base", x1: at, x2: at, y1: box.bottom, y2: box.bottom + 4 }));
    const text = whole ? grouped(value) : String(Number(value.toPrecision(3)));
    write(text, at, box.bottom + 17, at > width - 20 ? "end" : "middle");
  }
  write(below, box.left - 12, box.bottom + 17, "end");
  return { svg, x, y, box };
}

/** A line across a chart where one reads it, and the step it is at. */
function crosshair(x, box, step) {
  const [at, text] = [x(step), grouped(step)];
  const half = 3.2 * text.length + 5;
  const middle = Math.min(box.right + 8 - half, Math.max(half, at));
  return [
    shape("line", { class: "at", x1: at, x2: at, y1: box.top, y2: box.bottom + 4 }),
    shape("rect", { class: "tag", x: middle - half, y: box.bottom + 4, width: 2 * half, height: 17, rx: 3 }),
    shape("text", { class: "tagged", x: middle, y: box.bottom + 17, "text-anchor": "middle" }, text),
  ];
}

function plain(value, decimals) {
  return (Math.abs(value) >= 1000 ? grouped(Math.round(value)) : value.toFixed(decimals)).replace("-", "−");
}

function share(value, decimals) {
  return (100 * value).toFixed(Math.max(0, decimals - 2)) + "\u00a0%";
}

const panels = []; // functions that draw a panel at its present width

/** A titled figure whose chart is drawn anew whenever its width changes. */
function panel({ title, unit, classes, empty }, drawing) {
  const reading = make("output", { class: "reading" });
  const heading = make("h3", {}, visible(title));
  const caption = make("figcaption", {}, heading, make("span", { class: "unit" }, unit), reading);
  const element = make("figure", { class: `panel ${classes}` }, caption);
  if (!drawing) {
    reading.append(make("span", { class: "empty" }, empty));
    return { element, reading };
  }
  let [svg, drawn] = [null, 0];
  const redraw = () => {
    const width = Math.round(element.clientWidth);
    if (!width || width === drawn) return;
    drawn = width;
    const next = drawing(width);
    if (svg) svg.replaceWith(next);
    else element.append(next);
    svg = next;
  };
  panels.push(redraw);
  new ResizeObserver(() => requestAnimationFrame(redraw)).observe(element);
  return { element, reading };
}
