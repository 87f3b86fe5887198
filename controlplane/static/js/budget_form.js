// Shows only the fields that mean something for what was chosen. The server ignores the others.
(() => {
  const form = document.getElementById("budget-form");
  if (!form) return;
  const field = (name) => form.elements[name] && (form.elements[name].length && !form.elements[name].tagName
    ? form.elements[name][0] : form.elements[name]).closest(".field");
  const show = (name, wanted) => { const box = field(name); if (box) box.hidden = !wanted; };
  const value = (name) => new FormData(form).get(name);

  const update = () => {
    const period = value("window");
    if (period !== null) {
      show("time_zone", period !== "lifetime" && period !== "minute" && period !== "hour");
      show("anchor_day", ["month", "quarter", "year"].includes(period));
      show("max_values", value("per") !== "");
    }
    show("hold_mode", value("mode") === "hard");
  };
  form.addEventListener("change", update);
  update();
})();
