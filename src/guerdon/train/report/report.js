// The page: what goes where.

function main() {
  const data = JSON.parse(document.getElementById("run").textContent);
  const browser = rolloutsBrowser(document.getElementById("rollouts"), data.samples);
  drawCharts(data, browser.pick);
  drawPictures(document.getElementById("reasons"), data.pictures);
  drawReasons(document.getElementById("reasons"), data.reasons, data.curves);
  for (const draw of panels) draw();
}

/** What a denoising policy makes of the same noise, before the section that follows. */
function drawPictures(following, sheets) {
  if (!sheets.length) return;
  const drawn = sheets.map(({ step, image }) =>
    make(
      "figure",
      {},
      make("img", { src: image, alt: `Pictures of the policy after step ${step}` }),
      make("figcaption", {}, step === 0 ? "before training" : `after step ${step}`),
    ),
  );
  const note = make("output", {}, "what the same noise becomes, evaluation by evaluation");
  const heading = make("div", { class: "heading" }, make("h2", { id: "seen" }, "Pictures"), note);
  const sheet = make("div", { class: "sheets" }, drawn);
  following.before(make("section", { "aria-labelledby": "seen" }, heading, sheet));
}

function drawCharts({ kind, curves, evaluations, frontier, asked, lengths, finished }, pick) {
  const { step: steps, series, parts, every } = curves;
  const grid = document.getElementById("charts");
  if (!steps.length && !evaluations.length) {
    grid.before(make("p", { class: "empty" }, "No step has been recorded yet."));
    return;
  }
  const cursor = sharedCursor(steps);
  const first = Math.min(steps[0] ?? 0, evaluations[0]?.step ?? Infinity);
  const last = Math.max(steps.at(-1) ?? 0, evaluations.at(-1)?.step ?? 0, first + 1);
  const shared = { cursor, domain: [first <= 1 ? 0 : first, last], pick };
  const one = (name, title, unit, options) =>
    stepChart({ title, unit, series: [{ name: title, values: series[name] }], ...options }, shared);
  const shares = { ticks: share, value: percent, ceiling: 1 };
  const { overlaid, apart } = partsByScale(series.reward, parts);
  const reward = {
    title: "Reward",
    unit: overlaid.length ? "mean of the shaped reward and of its raw parts" : "mean",
    series: [{ name: "reward", values: series.reward }, ...overlaid],
    wide: true,
  };
  const missing = { missing: "Not recorded; it needs a reference policy." };
  const ofText = () => [
    stepChart(reward, shared),
    evaluationChart(evaluations, ACCURACY, shared),
    ...(evaluations.some((e) => "search" in e) ? [evaluationChart(evaluations, SEARCHED, shared)] : []),
    ...(frontier ? [frontierChart(frontier)] : []),
    one("length", "Length", "tokens, mean of rollouts"),
    lengthsChart(lengths, finished),
    one("kl", "KL to the reference", "nats per token", missing),
    one("entropy", "Entropy", "nats per token"),
    ...ofRollouts(),
  ];
  const ofPictures = () => [
    stepChart(reward, shared),
    ...OF_PICTURES.map((about) => evaluationChart(evaluations, about, shared)),
    one("vendi", "Variety in training", "Vendi score of a group, mean"),
    one("kl", "KL to the reference", "nats per denoising step, exact", missing),
    ...ofRollouts(),
  ];
  const ofPlans = () => [
    ...(asked ? [askedChart(asked)] : []),
    ...OF_PLANS.map((about) => evaluationChart(evaluations, about, shared)),
    one("codes_loss", "Loss of the codes", "of returns-to-go and states, in deviations"),
    one("plan_loss", "Loss of the plans", "of the codes, the first action and what was asked for"),
  ];
  const ofRollouts = () => [
    one("no_signal", "Groups without signal", "all rewards equal", shares),
    one("abstained", "Abstentions", "share of rollouts", shares),
    ...apart.map((part) => stepChart({ title: part.name, unit: "raw part, mean", series: [part] }, shared)),
  ];
  grid.append(...{ language: ofText, denoising: ofPictures, control: ofPlans }[kind]());
  drawMore(series, shared, one);
  if (steps.length) followCursor(cursor, series.seconds, every);
}

/** Parts that can be read on the reward's axis, and those that need their own. */
function partsByScale(reward, parts) {
  const size = (values) => Math.max(0, ...(values ?? []).filter((x) => x !== null).map(Math.abs));
  const all = Object.entries(parts).map(([name, values]) => ({ name, values }));
  const unit = size(reward) || Math.max(0, ...all.map((part) => size(part.values)));
  const comparable = (x) => x === 0 || (x <= 4 * unit && x >= unit / 20);
  const overlaid = all.filter((part) => comparable(size(part.values))).slice(0, 5);
  return { overlaid, apart: all.filter((part) => !overlaid.includes(part)) };
}

/** How the optimisation went, and whatever else the run has measured. */
function drawMore(series, shared, one) {
  const clipped = [{ name: "low", values: series.clip_low }, { name: "high", values: series.clip_high }];
  const power = (x) => (x ? x.toExponential(1).replace("-", "−") : "0");
  const ratio = (x) => (x === null ? figure(x) : x.toFixed(4));
  const known = {
    loss: ["Loss", "of the objective"],
    grad_norm: ["Gradient norm", "before clipping"],
    ratio: ["Importance ratio", "mean", { value: ratio }],
    approx_kl: ["KL to the old policy", "nats per token, estimate"],
    learning_rate: ["Learning rate", "", { exact: true, ticks: power }],
    tokens_per_second: ["Speed", "tokens per second"],
    steps_per_second: ["Speed", "denoising steps per second"],
    windows_per_second: ["Speed", "windows per second"],
  };
  const above = "reward length kl entropy vendi no_signal abstained seconds clip_low clip_high codes_loss plan_loss".split(" ");
  const others = Object.keys(series).filter((name) => !(name in known) && !above.includes(name));
  const charts = [
    ...Object.entries(known).flatMap(([name, about]) => (name in series ? [one(name, ...about)] : [])),
    ...others.map((name) => one(name, name, "")),
  ];
  if (series.clip_low || series.clip_high) {
    const about = { title: "Clipped", unit: "share of tokens", series: clipped };
    charts.unshift(stepChart({ ...about, ticks: share, value: percent, ceiling: 1 }, shared));
  }
  document.getElementById("more-charts").append(...charts);
  document.getElementById("more").hidden = !charts.length;
}

/** Say which step the values are of. */
function followCursor(cursor, seconds, every) {
  const note = document.getElementById("cursor");
  const lines = "Thin lines are steps, thick ones a centred mean.";
  const hint = `${lines} Move over a chart to read it, click to see its rollouts.`;
  const tell = () => {
    const i = cursor.shown;
    const time = typeof seconds?.[i] === "number" ? ` · ${duration(seconds[i])}` : "";
    const mean = every > 1 ? `, each point the mean of ${every} steps` : "";
    const values = `Values at step ${grouped(cursor.steps[i])}${time}${mean}`;
    note.replaceChildren(cursor.index === null ? `${values}. ${hint}` : values);
  };
  cursor.watch(tell);
  tell();
}

function drawReasons(section, { rows, kinds, total }, { series }) {
  if (!total) {
    const some = series.abstained?.some((x) => x > 0);
    const none = series.abstained ? "Every rollout had a score." : "Abstentions have not been recorded.";
    const text = some ? "Rollouts abstained, but their reasons were not recorded." : none;
    section.append(make("p", { class: "empty" }, text));
    return;
  }
  const number = { class: "number" };
  const heads = [["Reason"], ["Rollouts", number], ["Share", number], [""], ["Steps", number]];
  const head = heads.map(([name, classes]) => make("th", { ...classes, scope: "col" }, name));
  const body = rows.map(({ reason, count, first, last }) => {
    const bar = make("span", {});
    bar.style.width = `${(100 * count) / total}%`;
    return make(
      "tr",
      {},
      make("td", {}, visible(reason)),
      make("td", number, grouped(count)),
      make("td", number, percent(count / total)),
      make("td", { class: "share" }, bar),
      make("td", number, first === last ? String(first) : `${first}–${last}`),
    );
  });
  section.append(make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, body)));
  const others = total - rows.reduce((sum, row) => sum + row.count, 0);
  if (!others) return;
  const text = `and ${grouped(kinds - rows.length)} other reasons, for ${grouped(others)} rollouts`;
  section.append(make("p", { class: "empty" }, text));
}

// Paper has no summary to click.
window.addEventListener("beforeprint", () => {
  for (const element of document.querySelectorAll("details")) element.open = true;
});

try {
  main();
  document.documentElement.dataset.drawn = "yes";
} catch (error) {
  const notice = document.getElementById("failure");
  notice.textContent = `This report could not be drawn: ${error.message}`;
  notice.hidden = false;
  console.error(error);
}
