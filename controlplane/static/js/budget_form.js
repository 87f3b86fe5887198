// Shows only the fields that mean something for what was chosen, and the budget in words.
// The server ignores the hidden ones; without JavaScript all fields are simply there.
(() => {
  const form = document.getElementById("budget-form");
  if (!form) return;
  const words = document.getElementById("budget-words");
  const unitOfBudget = words.dataset.unit || "";

  const box = (name) => {
    const control = form.querySelector(`[name="${name}"]`);
    return control && control.closest(".field");
  };
  const show = (name, wanted) => { const field = box(name); if (field) field.hidden = !wanted; };
  const value = (name) => new FormData(form).get(name) || "";
  const chosen = (name) => {
    const control = form.elements[name];
    return control && control.selectedOptions ? control.selectedOptions[0].textContent.trim() : "";
  };
  const say = (part, text) => { words.querySelector(`[data-words="${part}"]`).textContent = text; };

  const whose = () => {
    if (!chosen("scope")) return "";
    const per = value("per") === "tag" ? `value of tag ${value("split_tag")}` : value("per");
    const split = per ? `, each ${per} by itself` : "";
    const session = value("session") ? `, session ${value("session")}` : "";
    const lines = value("filters").split("\n").map((line) => line.trim()).filter(Boolean);
    const only = lines.length ? ` with ${lines.join(" and ")}` : "";
    const again = {
      lifetime: "and never starts again",
      until: `until ${value("ends_on").replace("T", " ")} UTC`,
      rolling: `over the last ${value("rolling_hours")} hours`,
    }[value("window")] || `and starts again each ${value("window")}`;
    return `Counts every call of ${chosen("scope")}${session}${only}${split}, ${again}.`;
  };
  const limit = () => {
    const amount = value("limit").trim();
    if (!amount) return "";
    const unit = unitOfBudget || value("unit_of_limit");
    const shown = unit === "usd" ? `$${amount.replace("$", "")}` : `${amount} ${unit}`;
    return `Its limit is ${shown}.`;
  };
  const then = () => {
    if (value("mode") === "soft") return "Calls pass at the limit; that it was crossed is told.";
    if (value("mode") === "observe") return "Nothing happens at the limit.";
    return value("hold_mode") === "metered"
      ? "A call starts with a slice of the money and is cut mid-stream when no more is left."
      : "A call is let through only if the most that it can cost still fits. It is never overspent.";
  };

  const update = () => {
    const period = value("window");
    if (form.elements.window) {
      const calendar = !["lifetime", "until", "rolling"].includes(period);
      show("time_zone", calendar && !["minute", "hour"].includes(period));
      show("anchor_day", ["month", "quarter", "year"].includes(period));
      show("anchor_month", ["quarter", "year"].includes(period));
      show("rolling_hours", period === "rolling");
      show("ends_on", period === "until");
      show("rollover", calendar);
      show("rollover_amount", calendar && value("rollover") === "capped");
      show("max_values", value("per") !== "");
      show("overflow", value("per") !== "");
      show("split_tag", value("per") === "tag");
      show("session", value("scope").startsWith("agent:"));
    }
    show("hold_mode", value("mode") === "hard");
    say("whose", whose());
    say("limit", limit());
    say("then", then());
  };
  words.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("change", update);
  update();
})();
