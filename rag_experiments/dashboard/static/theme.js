// Before the first paint, so that a dark page does not flash light. The choice stays in this browser.
"use strict";
(() => {
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* storage may be closed: the system's choice then */ }
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
})();
