// The charts. Those over steps share one cursor: to read one is to read all at the same step.

const HEIGHT = { wide: 240, normal: 170 };
const FEW = 12; // steps that are drawn as points, and not smoothed

function sharedCursor(steps) {
  const watchers = [];
  return {
    steps,
    index: null,
    watch: (watcher) => watchers.push(watcher),
    move(index) {
      this.index = index;
      for (const watcher of watchers) watcher();
    },
    get shown() {
      return this.index ?? steps.length - 1;
    },
  };
}

function listen(svg, cursor, x, pick) {
  const nearest = (event) => {
    const bounds = svg.getBoundingClientRect();
    const at = ((event.clientX - bounds.left) / bounds.width) * svg.viewBox.baseVal.width;
    let best = 0;
    cursor.steps.forEach((step, i) => {
      if (Math.abs(x(step) - at) < Math.abs(x(cursor.steps[best]) - at)) best = i;
    });
    return best;
  };
  let pointer = "";
  svg.addEventListener("pointermove", (event) => cursor.move(nearest(event)));
  svg.addEventListener("pointerdown", (event) => {
    pointer = event.pointerType;
    cursor.move(nearest(event));
  });
  svg.addEventListener("pointerleave", () => cursor.move(null));
  svg.addEventListener("blur", () => cursor.move(null));
  // A finger reads by touching: only a mouse's click also leads to the rollouts.
  svg.addEventListener("click", (event) => pointer === "mouse" && pick(cursor.steps[nearest(event)]));
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) cursor.move(Math.min(cursor.steps.length - 1, Math.max(0, cursor.shown + move)));
    else if (event.key === "Enter") pick(cursor.steps[cursor.shown]);
    else return;
    event.preventDefault();
  });
}

/**
 * Lines over steps. A series is { name, values }; `ticks` writes the axis, `value` the read-out; what is `exact` is
 * not smoothed; `missing` is said when there is no series.
 */
function stepChart(about, { cursor, domain, pick }) {
  const { title, unit, series, wide, ceiling, exact, missing, ticks: format = plain, value = figure } = about;
  const { steps } = cursor;
  const classes = wide ? "wide steps" : "steps";
  const lines = series.filter((line) => line.values?.some((x) => x !== null));
  if (!lines.length) return panel({ title, unit, classes, empty: missing ?? "Not recorded." }).element;
  const few = steps.length < FEW;
  const smoothed = lines.map((line) => (few || exact ? line.values : smooth(line.values)));
  const height = wide ? HEIGHT.wide : HEIGHT.normal;
  const vertical = axis(lines.flatMap((line) => line.values), { height, ceiling });
  const [low, high] = vertical.range;
  const held = (v) => (v === null ? null : Math.min(high, Math.max(low, v)));
  let point = () => {};

  const chart = panel({ title, unit, classes }, (width) => {
    const ends = lines.map((line) => `${line.name} ${value(line.values.at(-1))}`).join(", ");
    const label = `${title}, ${unit}, over ${steps.length} steps; at the end ${ends}`;
    const { svg, x, y, box } = frame({ width, height, label, domain, vertical, format, below: "step" });
    lines.forEach((line, k) => {
      const group = shape("g", { class: `s${k % 6}` });
      if (!few) group.append(shape("path", { class: "raw", d: path(steps, line.values.map(held), x, y) }));
      line.values.forEach((v, i) => {
        if (v !== held(v)) group.append(beyond(x(steps[i]), v > high ? box.top - 7 : box.bottom + 7, v > high, v, i));
        else if (few && v !== null) group.append(shape("circle", { class: "dot", cx: x(steps[i]), cy: y(v), r: 3 }));
      });
      group.append(shape("path", { class: "line", d: path(steps, smoothed[k].map(held), x, y) }));
      svg.append(group);
    });
    const layer = shape("g", {});
    svg.append(layer);
    listen(svg, cursor, x, pick);
    point = () => {
      layer.replaceChildren();
      if (cursor.index === null) return;
      const step = steps[cursor.index];
      layer.append(...crosshair(x, box, step));
      lines.forEach((line, k) => {
        const v = held(line.values[cursor.index]);
        if (v !== null) layer.append(shape("circle", { class: `now s${k % 6}`, cx: x(step), cy: y(v), r: 4 }));
      });
    };
    point();
    return svg;
  });

  /** A mark at the edge for a value that the axis leaves out. */
  function beyond(at, tip, above, v, i) {
    const title = shape("title", {}, `off the scale: ${value(v)} at step ${steps[i]}`);
    return shape("path", { class: "over", d: `M${at} ${tip}l3.5 ${above ? 6 : -6}h-7z` }, title);
  }

  const read = () => {
    const texts = lines.map((line) => make("b", {}, value(line.values[cursor.shown])));
    const named = lines.map((line, k) =>
      make("span", {}, make("i", { class: `s${k % 6}` }), visible(line.name), " ", texts[k]),
    );
    chart.reading.classList.toggle("single", series.length === 1);
    chart.reading.replaceChildren(...(series.length > 1 ? named : texts));
  };
  cursor.watch(() => {
    point();
    read();
  });
  read();
  return chart.element;
}

const ACCURACY = {
  key: "accuracy",
  title: "Accuracy",
  unit: "share right on held-out prompts, 95 % interval",
  classes: "wide steps",
  ceiling: 1,
  interval: "ci95",
  of: "answers",
};
const SEARCHED = {
  key: "search",
  title: "Accuracy by search",
  unit: "share right of answers that were searched for, 95 % interval",
  classes: "wide steps",
  ceiling: 1,
  interval: "search_ci95",
};
const OF_PICTURES = [
  { key: "reward", title: "Reward, evaluated", unit: "mean, 95 % interval", classes: "wide steps", interval: "ci95", of: "pictures" },
  { key: "vendi", title: "Variety", unit: "Vendi score of a prompt's pictures", classes: "steps", beside: "vendi_real", of: "pictures" },
  { key: "nearest", title: "Distance to real", unit: "to the nearest real picture of the prompt", classes: "steps", of: "pictures" },
  { key: "recognized", title: "Recognized", unit: "share nearest to a real picture of the prompt", classes: "steps", ceiling: 1, of: "pictures" },
];

const OF_PLANS = [
  { key: "reward", title: "Earned when most is asked for", unit: "mean return, 95 % interval", classes: "steps", interval: "ci95", of: "episodes" },
  { key: "follows", title: "Does as asked", unit: "rank correlation of what was asked for and earned", classes: "steps", ceiling: 1 },
];

/** What was measured, with its interval where there is one, at each evaluation. */
function evaluationChart(evaluations, about, { cursor, domain, pick }) {
  const { key, title, ceiling, beside } = about;
  const known = evaluations
    .filter((e) => typeof e[key] === "number")
    .map((e) => ({ ...e, accuracy: e[key], ci95: e[about.interval] ?? null }));
  const real = beside ? known.map((e) => e[beside]).filter((x) => typeof x === "number") : [];
  const tall = about.classes.includes("wide") ? HEIGHT.wide : HEIGHT.normal;
  if (!known.length) return panel({ ...about, empty: "No evaluation has been recorded." }).element;
  const steps = known.map((e) => e.step);
  const accuracies = known.map((e) => e.accuracy);
  const ends = (e) => e.ci95 ?? [e.accuracy, e.accuracy];
  const vertical = axis([0, ...real, ...known.flatMap(ends)], { height: tall, ceiling });
  const written = known.length < 8 ? known : [known[0], known.at(-1)];
  let point = () => {};

  const chart = panel(about, (width) => {
    const label = `${title} at evaluations: ` + known.map((e) => `${aligned(e.accuracy)} at step ${e.step}`).join(", ");
    const drawing = { width, height: tall, label, domain, vertical, format: plain, below: "step" };
    const { svg, x, y, box } = frame(drawing);
    if (real.length) {
      const level = y(real[0]);
      svg.append(shape("line", { class: "mean after", x1: box.left, x2: box.right, y1: level, y2: level }));
      svg.append(shape("text", { class: "value", x: box.right - 4, y: level - 5, "text-anchor": "end" }, "real ones"));
    }
    const group = shape("g", { class: "s0" }, shape("path", { class: "raw", d: path(steps, accuracies, x, y) }));
    for (const e of known) {
      const at = x(e.step);
      const [low, high] = ends(e).map(y);
      const whisker = `M${at - 5} ${low}h10M${at - 5} ${high}h10M${at} ${low}V${high}`;
      if (e.ci95) group.append(shape("path", { class: "whisker", d: whisker }));
      group.append(shape("circle", { class: "now", cx: at, cy: y(e.accuracy), r: 5 }));
      if (!written.includes(e)) continue;
      const [anchor, beside] = at > width - 60 ? ["end", at - 10] : ["start", at + 10];
      const place = { class: "value", x: beside, y: y(e.accuracy) + 4, "text-anchor": anchor };
      group.append(shape("text", place, aligned(e.accuracy)));
    }
    const layer = shape("g", {});
    svg.append(layer, group);
    listen(svg, cursor, x, pick);
    point = () => {
      layer.replaceChildren();
      if (cursor.index !== null) layer.append(...crosshair(x, box, cursor.steps[cursor.index]));
    };
    point();
    return svg;
  });

  const read = () => {
    const step = cursor.index === null ? Infinity : cursor.steps[cursor.index];
    const e = known.findLast((each) => each.step <= step) ?? known[0];
    const interval = e.ci95 ? ` [${e.ci95.map((end) => aligned(end)).join(", ")}]` : "";
    const answers = e.n && about.of ? `, ${grouped(e.n)} ${about.of}` : "";
    const value = make("b", {}, aligned(e.accuracy));
    chart.reading.replaceChildren(make("span", {}, value, `${interval} at step ${e.step}${answers}`));
  };
  cursor.watch(() => {
    point();
    read();
  });
  read();
  return chart.element;
}

/** What a planner earned against what it was asked for, before and after; on the dashed line it does as it is asked. */
function askedChart({ sets, recorded }) {
  const about = { title: "Earned against asked for", unit: "mean return of evaluated episodes, 95 % interval", classes: "wide" };
  const every = sets.flatMap(({ points }) => points);
  const targets = every.map((p) => p.target);
  const [least, most] = [Math.min(...targets), Math.max(...targets)];
  const edge = 0.05 * (most - least) || 1;
  const vertical = axis([least, most, recorded.mean, ...every.flatMap((p) => p.ci95 ?? [p.reward])], { height: HEIGHT.wide });
  const names = sets.map(({ step }) => (step === 0 ? "before training" : `after step ${step}`));
  const chart = panel(about, (width) => {
    const said = sets.map(({ points }, k) => `${names[k]} ${points.map((p) => `${figure(p.reward)} of ${figure(p.target)}`).join(", ")}`);
    const label = `${about.title}: ${said.join("; ")}`;
    const drawing = { width, height: HEIGHT.wide, label, domain: [least - edge, most + edge], vertical };
    const { svg, x, y, box } = frame({ ...drawing, format: plain, below: "asked for", whole: false });
    const level = y(recorded.mean);
    svg.append(shape("line", { class: "mean before", x1: box.left, x2: box.right, y1: level, y2: level }));
    svg.append(shape("path", { class: "raw", d: `M${x(least)} ${y(least)}L${x(most)} ${y(most)}`, "stroke-dasharray": "4 4" }));
    sets.forEach(({ points }, k) => {
      const color = sets.length > 1 && k === 0 ? "s1" : "s0";
      const walked = points.map((p, i) => `${i ? "L" : "M"}${x(p.target).toFixed(1)} ${y(p.reward).toFixed(1)}`).join("");
      const group = shape("g", { class: color }, shape("path", { class: "raw", d: walked }));
      for (const p of points) {
        const at = x(p.target);
        const [low, high] = (p.ci95 ?? [p.reward, p.reward]).map(y);
        group.append(shape("path", { class: "whisker", d: `M${at - 5} ${low}h10M${at - 5} ${high}h10M${at} ${low}V${high}` }));
        group.append(shape("circle", { class: "now", cx: at, cy: y(p.reward), r: 4 }, shape("title", {}, figure(p.reward))));
      }
      svg.append(group);
    });
    return svg;
  });
  const items = sets.map((_, k) => make("span", {}, make("i", { class: sets.length > 1 && k === 0 ? "s1" : "s0" }), names[k]));
  const mean = make("span", {}, "level: mean of the recorded episodes, ", make("b", {}, figure(recorded.mean)));
  chart.reading.replaceChildren(...items.reverse(), mean);
  return chart.element;
}

/** Reward against KL: the most that could be had of the answers at the start, the best of several, and the run. */
function frontierChart({ curve, best_of: bests, points }) {
  const about = { title: "Reward against KL", unit: "mean of the evaluated answers", classes: "wide" };
  const every = [...points, ...bests];
  const reach = 1.05 * Math.max(curve.kl.at(-1), ...every.map((p) => p.kl)) || 1;
  const vertical = axis([...curve.reward, ...every.map((p) => p.reward)], { height: HEIGHT.wide });
  const chart = panel(about, (width) => {
    const said = points.map((p) => `${aligned(p.reward)} at ${figure(p.kl)} nats at step ${p.step}`).join(", ");
    const drawing = { width, height: HEIGHT.wide, label: `${about.title}: ${said}`, domain: [0, reach], vertical };
    const { svg, x, y } = frame({ ...drawing, format: plain, below: "nats", whole: false });
    const line = curve.kl.map((kl, i) => `${i ? "L" : "M"}${x(kl).toFixed(1)} ${y(curve.reward[i]).toFixed(1)}`).join("");
    const known = shape("g", { class: "s0" }, shape("path", { class: "line", d: line }));
    for (const { m, kl, reward } of bests) {
      const title = shape("title", {}, `best of ${m}: ${aligned(reward)} at ${figure(kl)} nats`);
      known.append(shape("circle", { class: "dot", cx: x(kl), cy: y(reward), r: 3 }, title));
    }
    const walked = points.map((p, i) => `${i ? "L" : "M"}${x(p.kl).toFixed(1)} ${y(p.reward).toFixed(1)}`).join("");
    const run = shape("g", { class: "s1" }, shape("path", { class: "raw", d: walked }));
    points.forEach((p, i) => {
      const [at, down] = [x(p.kl), y(p.reward)];
      run.append(shape("circle", { class: "now", cx: at, cy: down, r: 5 }));
      if (i && i < points.length - 1) return;
      const [anchor, beside] = at > width - 80 ? ["end", at - 10] : ["start", at + 10];
      run.append(shape("text", { class: "value", x: beside, y: down + 4, "text-anchor": anchor }, `step ${p.step}`));
    });
    svg.append(known, run);
    return svg;
  });
  const last = points.at(-1);
  const spent = last && make("b", {}, `${aligned(last.reward)} at ${figure(last.kl)} nats`);
  const beyond = last && typeof last.regret === "number" ? `, ${figure(last.regret)} more than it need cost` : "";
  const named = [["s1", "the run ", spent, beyond], ["s0", "the most that answers of its start could give; dots: the best of several"]];
  const items = named.map(([kind, ...texts]) => make("span", {}, make("i", { class: kind }), ...texts));
  chart.reading.replaceChildren(...items);
  return chart.element;
}

/** Lengths of the answers before and after, in the same bins. */
function lengthsChart(lengths, finished) {
  const about = { title: "Length distribution", unit: "share of answers", classes: "" };
  if (!lengths) return panel({ ...about, empty: "No evaluation has recorded lengths." }).element;
  const { start, width: size, sets } = lengths;
  const shares = sets.map(({ counts }) => counts.map((count) => count / counts.reduce((a, b) => a + b, 0)));
  const bins = sets[0].counts.length;
  const domain = [start, start + bins * size];
  const vertical = axis([0, ...shares.flat()], { height: HEIGHT.normal, ceiling: 1 });
  const kinds = ["before", "after"];
  const names = sets.map((set, k) => (set.step === 0 ? "before" : k && finished ? "after" : `step ${set.step}`));

  const chart = panel(about, (width) => {
    const means = sets.map((set, k) => `mean ${figure(set.mean)} ${names[k]}`).join(", ");
    const label = `Length distribution in tokens; ${means}`;
    const drawing = { width, height: HEIGHT.normal, label, domain, vertical, format: share, below: "tokens" };
    const { svg, x, y, box } = frame(drawing);
    const layer = shape("g", {});
    svg.append(layer);
    shares.forEach((row, k) => {
      const tops = row.map((value, i) => `V${y(value).toFixed(1)}H${x(start + (i + 1) * size).toFixed(1)}`);
      const outline = `M${x(start).toFixed(1)} ${box.bottom}${tops.join("")}V${box.bottom}`;
      const mean = x(sets[k].mean + (size === 1 ? 0.5 : 0));
      const group = shape("g", { class: kinds[k] });
      group.append(shape("path", { class: "bar", d: outline + "z" }), shape("path", { class: "outline", d: outline }));
      group.append(shape("line", { class: "mean", x1: mean, x2: mean, y1: box.top, y2: box.bottom }));
      svg.append(group);
    });
    const point = (bin) => {
      layer.replaceChildren();
      if (bin !== null) {
        const [left, right] = [x(start + bin * size), x(start + (bin + 1) * size)];
        const place = { x: left, y: box.top, width: right - left, height: box.bottom - box.top };
        layer.append(shape("rect", { class: "bin", ...place }));
      }
      read(bin);
    };
    svg.addEventListener("pointermove", (event) => {
      const bounds = svg.getBoundingClientRect();
      const at = ((event.clientX - bounds.left) / bounds.width) * width;
      const bin = Math.floor(((at - box.left) / (box.right - box.left)) * bins);
      point(bin >= 0 && bin < bins ? bin : null);
    });
    svg.addEventListener("pointerleave", () => point(null));
    return svg;
  });

  const read = (bin) => {
    const items = sets.map((set, k) => {
      const value = bin === null ? `mean ${figure(set.mean)}` : percent(shares[k][bin]);
      return make("span", {}, make("i", { class: kinds[k] }), names[k] + " ", make("b", {}, value));
    });
    if (bin !== null) {
      const [low, high] = [start + bin * size, start + (bin + 1) * size - 1];
      items.unshift(make("span", {}, low === high ? `${low} tokens` : `${low}–${high} tokens`));
    }
    chart.reading.replaceChildren(...items);
  };
  read(null);
  return chart.element;
}
