// The switch for live updates, and what every refreshed fragment needs.
//
// The server only sends signals ("ledger changed"); fragments ask for themselves again with
// hx-get. While updates are paused signals are dropped; on resuming, each fragment asks once.
(() => {
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

  button.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("live-paused", paused ? "yes" : "no");
    if (!paused) document.body.dispatchEvent(new CustomEvent("changed", { bubbles: true }));
    show();
  });
  stream.addEventListener("htmx:before:sse:message", (event) => {
    if (paused) event.detail.message.cancelled = true;
  });
  stream.addEventListener("htmx:after:sse:connection", () => { connected = true; show(); });
  stream.addEventListener("htmx:sse:error", () => { connected = false; show(); });
  stream.addEventListener("htmx:sse:close", () => { connected = false; show(); });
  show();

  // A fragment that could not be fetched keeps its last content; the next signal asks again.
  document.addEventListener("htmx:response:error", (event) => event.preventDefault());

  // Threshold crossings are told once, politely; figures that merely move are not.
  const announcer = document.getElementById("announcer");
  document.addEventListener("htmx:after:swap", () => {
    const note = document.querySelector("[data-announce]");
    const text = note ? note.dataset.announce : "";
    if (announcer && text && announcer.textContent !== text) announcer.textContent = text;
  });
})();
