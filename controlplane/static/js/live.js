// The switch for live updates, and what every refreshed fragment needs.
//
// The server only sends signals ("something changed"); fragments ask for themselves again with
// hx-get. While updates are paused signals are dropped; on resuming, each fragment asks once.
(() => {
  const RETRY_MS = 5000;
  const stream = document.getElementById("live");
  const button = document.getElementById("live-switch");
  if (!stream || !button) return;
  const word = button.querySelector(".live-word");
  let paused = sessionStorage.getItem("live-paused") === "yes";
  let connected = false;

  const show = () => {
    button.hidden = false;
    button.setAttribute("aria-pressed", String(paused));
    button.title = paused ? "Resume live updates" : "Pause live updates";
    button.dataset.state = !paused && !connected ? "waiting" : "";
    word.textContent = paused ? "Paused" : connected ? "Live" : "Connecting";
  };
  const refresh = () => document.body.dispatchEvent(new CustomEvent("changed", { bubbles: true }));

  button.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("live-paused", paused ? "yes" : "no");
    if (!paused) refresh();
    show();
  });
  stream.addEventListener("htmx:before:sse:message", (event) => {
    if (paused) event.detail.message.cancelled = true;
  });
  document.addEventListener("htmx:before:swap", (event) => { // asked for before the pause
    if (paused && event.detail.ctx.sourceEvent?.type === "changed") event.preventDefault();
  });

  // htmx reconnects a stream that broke; one that never began, or that the server ended, we ask
  // for again ourselves. What changed in between is fetched at once.
  let interrupted = false;
  stream.addEventListener("htmx:after:sse:connection", () => {
    connected = true;
    if (interrupted && !paused) refresh();
    interrupted = false;
    show();
  });
  for (const lost of ["htmx:sse:error", "htmx:sse:close"]) {
    stream.addEventListener(lost, () => { connected = false; interrupted = true; show(); });
  }
  setInterval(() => {
    if (stream._htmx && stream._htmx.sse) return;
    interrupted = true;
    htmx.ajax("GET", stream.getAttribute("hx-sse:connect"), { source: stream, swap: "none" });
  }, RETRY_MS);
  show();

  // Threshold crossings are told once, politely; figures that merely move are not.
  const announcer = document.getElementById("announcer");
  document.addEventListener("htmx:after:swap", () => {
    const note = document.querySelector("[data-announce]");
    const text = note ? note.dataset.announce : "";
    if (announcer && text && announcer.textContent !== text) announcer.textContent = text;
  });
})();
