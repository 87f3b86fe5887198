// Draws every <figure data-chart>: the numbers come from the table inside the figure, so that
// picture and table cannot differ. The legend is HTML; the canvas carries no text of its own.
(() => {
  const css = (name) => {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
  };
  const fade = (colour, alpha) => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = colour;
    const hex = canvas.fillStyle;
    return hex.startsWith("#") ? hex + Math.round(alpha * 255).toString(16).padStart(2, "0") : colour;
  };
  const dollars = (nanos) => {
    const usd = nanos / 1e9;
    if (usd === 0) return "$0";
    if (usd >= 1) return "$" + usd.toLocaleString("en-US", { maximumFractionDigits: 2 });
    return "$" + Number(usd.toPrecision(2));
  };

  const read = (figure) => {
    const xs = [], ys = [], limits = [], labels = [];
    for (const row of figure.querySelectorAll("tbody tr[data-x]")) {
      xs.push(Number(row.dataset.x));
      ys.push(row.dataset.y === "" ? null : Number(row.dataset.y));
      limits.push(row.dataset.limit ? Number(row.dataset.limit) : null);
      labels.push(row.dataset.label);
    }
    return { xs, ys, limits, labels };
  };

  const bars = (ink) => ({
    stroke: ink, fill: fade(ink, 0.8), width: 0, points: { show: false },
    paths: uPlot.paths.bars({ size: [0.72, 28], align: 1, radius: 0.18 }),
  });
  const area = (ink) => ({ stroke: ink, fill: fade(ink, 0.14), width: 2, points: { show: false } });

  const draw = (figure, anew) => {
    const box = figure.querySelector(".chart-plot");
    const readout = figure.querySelector(".chart-readout");
    const { xs, ys, limits, labels } = read(figure);
    if (!box || xs.length === 0) return;
    const hasLimit = limits.some((value) => value !== null);
    const data = hasLimit ? [xs, ys, limits] : [xs, ys];
    figure.labels = labels;
    if (figure.plot && !anew && figure.plot.series.length === data.length && box.contains(figure.plot.root)) {
      figure.plot.setData(data);
      return;
    }
    const line = css("--line"), faint = css("--text-faint"), ink = css("--spent");
    const zone = figure.dataset.zone || "UTC";
    const axis = { stroke: faint, grid: { stroke: line, width: 1 }, ticks: { show: false },
                   font: "11px 'Inter Variable', sans-serif" };
    const money = figure.dataset.unit === "usd";
    // A bar begins at its hour and is as wide as the hours are apart: the last one needs room.
    const width = figure.dataset.chart === "bars" && xs.length > 1 ? xs[1] - xs[0] : 0;
    const options = {
      width: box.clientWidth, height: box.clientHeight, legend: { show: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone),
      cursor: { y: false, points: { show: false }, drag: { x: false } },
      padding: [8, 20, 0, 0],
      scales: { x: { range: (u, low, high) => [low, Math.max(high + width, low + 60)] }, y: { range: (u, low, high) => [0, (high || 1) * 1.12] } },
      axes: [
        { ...axis, grid: { show: false }, space: 72, size: 28, gap: 8,
          values: [[86400, "{D} {MMM}", null, null, null, null, null, null, 1],
                   [3600, "{HH}:{mm}", null, null, null, null, null, null, 1],
                   [60, "{HH}:{mm}", null, null, null, null, null, null, 1]] },
        { ...axis, size: 58, values: (u, ticks) => ticks.map(money ? dollars : (v) => v.toLocaleString("en-US")) },
      ],
      series: [{}, figure.dataset.chart === "bars" ? bars(ink) : area(ink)],
      hooks: { setCursor: [(u) => {
        if (readout) readout.textContent = u.cursor.idx == null ? "" : figure.labels[u.cursor.idx] || "";
      }] },
    };
    if (hasLimit) {
      options.series.push({ stroke: css("--overrun"), dash: [5, 4], width: 1.5, points: { show: false } });
    }
    if (figure.plot) figure.plot.destroy();
    figure.plot = new uPlot(options, data, box);
  };

  const drawAll = (anew) => {
    for (const figure of document.querySelectorAll("figure[data-chart]")) draw(figure, anew);
  };
  let waiting;
  const later = () => { clearTimeout(waiting); waiting = setTimeout(() => drawAll(true), 120); };
  drawAll(true);
  addEventListener("resize", later);
  document.addEventListener("theme-changed", later);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
  document.addEventListener("htmx:after:swap", () => drawAll(false));
})();
